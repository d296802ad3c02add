"""Check data before training on it: `python -m thaw.check data=image_folder data.root=<folder>`."""

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError


@command("check")
def main(cfg: DictConfig) -> None:
    """Print the report on the data."""
    print(check(cfg))


def check(cfg: DictConfig) -> str:
    """The report on `cfg.data`: samples of each class and split, and what is odd about them.

    Raises:
        UserError: samples cannot be used, and `data.on_bad` does not leave them out; the message holds the report.
    """
    from thaw.config import build  # here, so that --help is fast

    must_load = cfg.data.get("on_bad") == "error"
    if must_load:  # so that all else is reported, too
        cfg.data.on_bad = "leave_out"
    data = build.data(cfg)
    bad = data.facts.left_out if must_load else []
    what = f"{len(bad)} sample{'s' * (len(bad) != 1)} cannot be used"
    faults = [f"{what}: fix or remove them, or type data.on_bad=leave_out", *bad]
    try:
        data.split()
    except ValueError as error:
        raise UserError("\n  ".join([*faults, str(error)]) if bad else str(error)) from None
    if bad:
        raise UserError(f"{faults[0]}. Without them:\n{data.report()}")
    return data.report()


if __name__ == "__main__":
    main()
