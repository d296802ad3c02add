"""The stages of a backbone, as plans name them: `python -m thaw.stages backbone=torchvision backbone.name=resnet50`."""

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.imports import library_imports


@command("stages")
def main(cfg: DictConfig) -> None:
    """Print the stages of the backbone."""
    print(stages(cfg))


def stages(cfg: DictConfig) -> str:
    """A tree with parameter counts and output shapes; weights are neither loaded nor downloaded."""
    with library_imports():
        from thaw.config import build
        from thaw.finetuning.table import stage_tree
        from thaw.models.heads import linear
        from thaw.models.network import Network

    backbone = build.backbone(cfg, pretrained=False)
    if cfg.adapter:
        backbone = build.adapted(cfg.adapter, backbone)
    network = Network(backbone, linear(backbone.num_features, num_outputs=1))
    return stage_tree(network, backbone.num_features, backbone.input_spec)


if __name__ == "__main__":
    main()
