"""Interface between exports and one kind of network input; `images.py` and `texts.py` implement it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.export import Dim


class InputKind(ABC):
    """One kind of user input (images, texts): how it is described, made, and turned into inputs of the network.

    A "sample" is what the exported ONNX runner takes: the path of an image, a text, or a pair of texts.

    Attributes:
        things: What the samples are called in messages: "images", "texts".
        user_inputs: What `InferenceModel` takes, for people.
        network_inputs: What the bare network takes, for people.
        example_sample: A sample as one would type it on a command line.
        runner_files: Modules that the ONNX runner imports; they need nothing of thaw.
        text_files: Contents of files that every export needs beside it, by name.
        preprocessing: Steps from a sample to the user inputs, in order; plain values.
    """

    things: str
    user_inputs: str
    network_inputs: str
    example_sample: str
    runner_files: Sequence[Path] = ()
    text_files: Mapping[str, str] = MappingProxyType({})
    preprocessing: Mapping[str, Any]

    @abstractmethod
    def example(self) -> dict[str, Tensor]:
        """User inputs for a batch of two, by the names that they have in an exported file."""

    @abstractmethod
    def varying_dimensions(self) -> dict[int, Dim]:
        """Dimensions of every input that may differ from the example's."""

    @abstractmethod
    def to_network(self, *inputs: Tensor) -> Tensor | dict[str, Tensor]:
        """Turn user inputs into what the network takes. It becomes part of exported programs."""

    @abstractmethod
    def read(self, samples: Sequence[Any]) -> tuple[Tensor, ...]:
        """Make one batch of user inputs from samples, with the preprocessing of evaluation."""

    @abstractmethod
    def sample(self, data: Any, index: int, variation: int, stem: Path) -> Any:
        """Make a sample from number `index` of the data module; if it needs a file, that is `stem` plus a suffix.

        Variation 0 leaves it as it is; 1, 2 and 3 make it unusual, each in another way.
        """

    def samples(self, data: Any, count: int, folder: Path) -> list[Any]:
        """Make `count` samples from the test split (from val if it is empty), three in four of them unusual."""
        indices = data.splits.test if len(data.splits.test) else data.splits.val
        numbered = enumerate(islice(cycle(indices.tolist()), count))
        return [self.sample(data, index, number % 4, folder / f"{number:04}") for number, index in numbered]
