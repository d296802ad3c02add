"""A trained network as others use it."""

import json

import torch
from torch import Tensor, nn

from thaw.backbones.backbone import Backbone, Library
from thaw.data.transforms import normalise
from thaw.network import Network
from thaw.task import SingleLabel


class Deployed(nn.Module):
    """uint8 images (B, C, H, W), resized and cut, to class probabilities (B, C): normalisation is inside."""

    def __init__(self, network: Network, backbone: Backbone, task: SingleLabel, class_names: list[str]):
        super().__init__()
        self.network = network.to(memory_format=torch.contiguous_format)
        self.backbone, self.task, self.class_names = backbone, task, class_names
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.task.probabilities(self.network(normalise(images, self.backbone.input_spec)))

    def metadata(self) -> dict[str, str]:
        """Class names and preprocessing, as JSON: what a file must carry to be used without thaw."""
        spec = self.backbone.input_spec
        preprocessing = {
            "1_load": "8 bits per channel; EXIF orientation applied; first frame; transparent becomes white",
            "2_mode": "RGB" if spec.channels == 3 else "L",
            "3_resize_sides": "both" if spec.squash else "shorter",
            "3_resize_px": spec.resize_px,
            "3_resize_interpolation": spec.interpolation,
            "3_resize_library": "Pillow",
            "4_center_crop_px": spec.size_px,
            "5_scale": 1 / 255,
            "6_mean": spec.mean,
            "6_std": spec.std,
        }
        return {
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "preprocessing": json.dumps(preprocessing),
        }

    def tensors(self, library: Library) -> dict[str, Tensor]:
        """By the names that the network has in `library`."""
        if library.head is None:
            return {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        named = {}
        for name, tensor in self.network.stages.state_dict().items():
            stage, own = name.split(".", 1)
            named[f"{library.head}.{own.split('.')[-1]}" if stage == "head" else own] = tensor.contiguous()
        return named
