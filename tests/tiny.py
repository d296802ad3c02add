"""A network so small that a whole run takes a second; with BatchNorm and dropout, which are easy to get wrong."""

from torch import nn

from thaw.backbones.backbone import Backbone, ImageSpec


def backbone(weights: None = None, dropout: float = 0.2, channels: int = 1) -> Backbone:
    stages = {
        "stem": _block(channels, 8, dropout),
        "layer1": _block(8, 8, dropout),
        "layer2": nn.Sequential(_block(8, 16, dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }
    return Backbone(stages, num_features=16, input_spec=ImageSpec(8, channels, (0.3,) * channels, (0.35,) * channels))


def _block(inputs: int, outputs: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(dropout))


def smooth(weights: None = None) -> Backbone:
    """Without BatchNorm and dropout: what two processes make of a batch is what one makes of it."""
    stages = {
        "stem": nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU()),
        "layer1": nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()),
        "layer2": nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }
    return Backbone(stages, num_features=16, input_spec=ImageSpec(8, 1, (0.3,), (0.35,)))
