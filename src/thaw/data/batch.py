"""What every loader yields."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    inputs: Tensor | dict[str, Tensor]
    """What stage `start` takes; images: (B, C, H, W). Only backbones look inside."""
    target: Tensor
    """(B,) class indices."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    """(B,) identity of each sample in its source."""
    start: int = 0
    """The stage that `inputs` enter: above 0 where they are activations computed before."""
    view: int | None = None
    """Which augmented version of the samples this is; None: the evaluation's."""
    total: int | None = None
    """Samples of the batch over all processes; None: these are all."""
