"""Look through data before anything is trained on it: `python -m thaw.check data=image_folder data.root=<folder>`."""

from omegaconf import DictConfig

from thaw.command import command


@command("check")
def main(cfg: DictConfig) -> None:
    print(check(cfg))


def check(cfg: DictConfig) -> str:
    """The report on `cfg.data`: samples of each class and split, and whatever is odd about them.

    Raises ValueError with the report where files cannot be loaded and `data.on_bad` does not leave them out.
    """
    from thaw import build

    must_load = cfg.data.get("on_bad") == "error"
    if must_load:  # so that all else is reported, too
        cfg.data.on_bad = "leave_out"
    data = build.data(cfg)
    if must_load and (bad := getattr(data, "left_out", [])):
        raise ValueError(
            f"{len(bad)} images cannot be loaded. Mend or remove them, or type data.on_bad=leave_out. Without them:\n"
            f"{data.report()}"
        )
    return data.report()


if __name__ == "__main__":
    main()
