"""A trained network as others use it."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.models.backbone import Backbone, RebuildRecipe
from thaw.models.network import Network
from thaw.tasks.single_label import SingleLabel


class InferenceModel(nn.Module):
    """What a user has, to class probabilities (B, C). One class for images, one for texts: `images.py`, `texts.py`."""

    parameters_take: str
    """What the network without the rest is given, for people; it gives logits."""
    whole_takes: str
    """What all of it is given."""

    def __init__(self, network: Network, backbone: Backbone, task: SingleLabel, class_names: list[str]):
        super().__init__()
        self.network = network.to(memory_format=torch.contiguous_format)
        self.backbone, self.task, self.class_names = backbone, task, class_names
        self.eval()

    @property
    def things(self) -> str:
        return self.backbone.input_spec.things

    @abstractmethod
    def example(self) -> dict[str, Tensor]:
        """Some inputs, by the names that they have in an exported file."""

    @abstractmethod
    def dynamic_shapes(self) -> dict[str, Any]:
        """Which of their dimensions may vary, as torch.export has it."""

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """How the inputs are made; plain values."""

    @abstractmethod
    def samples(self, data: Any, count: int, folder: Path) -> list[str]:
        """`count` of the source's test samples (of val where there is no test), some made odd, as `run_onnx.py` takes
        them; files go into `folder`."""

    @abstractmethod
    def inputs(self, samples: Sequence[str]) -> tuple[Tensor, ...]:
        """Of `forward`, for a batch of samples, made as in training."""

    @abstractmethod
    def library_inputs(self, inputs: tuple[Tensor, ...]) -> Any:
        """What the network without the rest takes in their place."""

    @abstractmethod
    def asked(self, samples: Sequence[str]) -> tuple[list[str], str | None]:
        """How `run_onnx.py` is given samples: arguments, and standard input."""

    @abstractmethod
    def runner(self) -> dict[str, Path]:
        """Files that do the whole way from a sample to its label with onnxruntime, by the names that they get."""

    def beside(self) -> dict[str, str]:
        """Files that no export can do without, by name."""
        return {}

    def metadata(self) -> dict[str, str]:
        """Class names and preprocessing, as JSON: what a file must carry to be used without thaw."""
        return {
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "preprocessing": json.dumps(self.preprocessing()),
        }

    def tensors(self, library: RebuildRecipe) -> dict[str, Tensor]:
        """By the names that the network has in `library`."""
        if library.head is None:
            return {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        return {_named(name, library): tensor.contiguous() for name, tensor in self.network.stages.state_dict().items()}


def _named(name: str, library: RebuildRecipe) -> str:
    stage, own = name.split(".", 1)
    if stage == "head":
        return f"{library.head}.{own.split('.')[-1]}"
    prefix = next((prefix for prefix in library.names if name.startswith(prefix)), f"{stage}.")
    return library.names.get(prefix, "") + name.removeprefix(prefix)
