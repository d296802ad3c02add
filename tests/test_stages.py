from collections.abc import Callable

from omegaconf import DictConfig

from thaw.stages import stages

Config = Callable[..., DictConfig]


def test_the_tree_has_names_counts_and_shapes(config: Config) -> None:
    tree = stages(config("backbone=torchvision", "backbone.name=resnet18", name="stages"))  # and no weights are fetched
    lines = tree.splitlines()
    assert lines[0].startswith("input 3 x 224 x 224, 11,176,512 parameters")
    top = [line.removeprefix("├── ").removeprefix("└── ").split()[0] for line in lines if line[0] in "├└"]
    assert top == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert "layer2  525,568 -> 128 x 28 x 28" in tree
    assert "layer4.1  BasicBlock  4,720,640" in tree
    assert "layer4  8,393,728 -> 512" in tree
    assert lines[-1] == "in plans a parameter is named by its stage and its path: stem.bn1.norm.bias"


def test_of_the_shipped_backbone_by_blocks_and_by_default(config: Config) -> None:
    assert "stage4  271,104 -> 128" in stages(config(name="stages"))
    blocks = stages(config("backbone=torchvision", "backbone.granularity=blocks", name="stages"))
    assert "layer1_0" in blocks
