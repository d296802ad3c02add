"""Numbers and lists as a reader sees them."""

from collections.abc import Sequence


def percent(share: float) -> str:
    """A share as a percentage with one digit; it says 100.0% or 0.0% only where it is exactly so."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{100 * share:.1f}%"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of shares, as two percentages with one sign."""
    return "\N{EN DASH}".join(percent(bound) for bound in interval).replace("%", "", 1)


def duration(seconds: float) -> str:
    """A duration in its two largest units: "3 min 20 s"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole, minutes = round(seconds), round(seconds / 60)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{minutes // 60} h {minutes % 60} min"


def enumerate_names(names: Sequence[str], most: int = 8) -> str:
    """The first `most` names, and how many more there are: "a, b and 3 more"."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def decimals(value: float) -> str:
    """A metric with four digits after the point; fewer of a large number, more of a tiny one."""
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.4f}"


def amount(value: float) -> str:
    """A number in the user's unit with three digits, or all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def short_range(interval: tuple[float, float] | None) -> str:
    """An interval of scores with three digits; empty if there is none."""
    return "" if interval is None else "{:.3f}\N{EN DASH}{:.3f}".format(*interval)


def amount_range(interval: tuple[float, float]) -> str:
    """An interval in the user's unit."""
    return " to ".join(amount(bound) for bound in interval)
