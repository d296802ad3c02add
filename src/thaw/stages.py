"""The stages of a backbone, as plans name them: `python -m thaw.stages backbone=torchvision backbone.name=resnet50`."""

from omegaconf import DictConfig

from thaw.config.command import command


@command("stages")
def main(cfg: DictConfig) -> None:
    print(stages(cfg))


def stages(cfg: DictConfig) -> str:
    """A tree with parameter counts and output shapes; weights are neither loaded nor downloaded."""
    from thaw.config import build
    from thaw.finetuning.table import stage_tree

    return stage_tree(build.backbone(cfg, pretrained=False))


if __name__ == "__main__":
    main()
