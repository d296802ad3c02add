"""A trained network as others use it: preprocessing and the meaning of its outputs included."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from thaw.exporting.images import Images
from thaw.exporting.inputs import InputKind
from thaw.exporting.texts import Texts
from thaw.models.backbone import Backbone
from thaw.models.network import Network
from thaw.tasks.task import Task
from thaw.types import ImageSpec, TokenSpec

INPUT_KINDS: dict[type, Any] = {ImageSpec: Images, TokenSpec: Texts}


class InferenceModel(nn.Module):
    """Inference wrapper: user inputs in, class probabilities or numbers (B, C) out.

    Images enter as uint8 (B, C, H, W), texts as token ids and mask (B, T). The model is in evaluation mode.

    `head_code` is a Python expression that makes the head; only a head with modules that are not torch's needs it.
    """

    def __init__(self, network: Network, backbone: Backbone, task: Task, class_names: list[str], head_code: str = ""):
        super().__init__()
        self.network = network.to(memory_format=torch.contiguous_format)
        self.task, self.class_names, self.head_code = task, class_names, head_code
        self.recipe, self.settings = backbone.recipe, backbone.settings
        self.inputs: InputKind = INPUT_KINDS[type(backbone.input_spec)](backbone.input_spec)
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the network says of one batch, (B, C): probabilities, or numbers in the user's unit."""
        return self.task.predictions(self.network(self.inputs.to_network(*inputs)))

    @property
    def metadata(self) -> dict[str, Any]:
        """Names, preprocessing and thresholds, plain values: what a file must carry to be used without thaw."""
        known = {"class_names": self.class_names, "preprocessing": dict(self.inputs.preprocessing)}
        return {**known, **self.task.decision()}

    @property
    def encoded_metadata(self) -> dict[str, str]:
        """The metadata as JSON, for files that hold texts only."""
        return {key: json.dumps(value, ensure_ascii=False) for key, value in self.metadata.items()}
