"""How much each choice of a sweep mattered: a bar each."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from thaw.reporting.pictures.labels import shortened
from thaw.reporting.pictures.style import BLUE, GREY, INK, WIDTH, Picture, empty, plain

MOST_BARS = 20


def importance_bars(shares: Mapping[str, float]) -> Figure:
    """Return a bar for each choice, the most important one at the top.

    Args:
        shares: of the variance of the metric that each choice explains, 0..1.
    """
    if not shares:
        return empty("no choice was varied")
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    shown = ordered[:MOST_BARS][::-1]  # places count from the bottom
    picture = Picture(WIDTH, 0.9 + 0.32 * len(shown))
    axes = plain(picture.subplots())
    axes.barh(range(len(shown)), [share for _, share in shown], height=0.62, color=BLUE)
    axes.set_yticks(range(len(shown)), [shortened(name, 36) for name, _ in shown], color=INK)
    for place, (_, share) in enumerate(shown):
        said = f"{share:.0%}" if share >= 0.005 or share == 0 else "<1%"
        axes.annotate(said, (share, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5, color=GREY)
    axes.set(xlim=(0, 1.12 * shown[-1][1] or 1), xticks=[])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if len(ordered) > len(shown):
        picture.note(f"The first {MOST_BARS} of {len(ordered)} choices.")
    return picture
