"""Look through data before anything is trained on it: `python -m thaw.check data=image_folder data.root=<folder>`."""

from omegaconf import DictConfig

from thaw.command import command


@command("check")
def main(cfg: DictConfig) -> None:
    print(check(cfg))


def check(cfg: DictConfig) -> str:
    """The report on `cfg.data`: samples of each class and split, and whatever is odd about them."""
    from thaw import build

    return build.data(cfg).report()


if __name__ == "__main__":
    main()
