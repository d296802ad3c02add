"""Single-label classification: each sample belongs to exactly one class.

B: batch size, C: classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from thaw.data.class_labels import ClassLabels
from thaw.errors import UserError
from thaw.tasks.calibration import fit_temperature
from thaw.tasks.metrics import single_label_confusion
from thaw.tasks.outputs import ClassOutputs, Outputs
from thaw.tasks.task import NO_METRICS, Described, Task


class SingleLabel(Task):
    """Task in which each sample belongs to exactly one of C classes.

    Args:
        num_classes: C.
        loss: Function of logits (B, C) and classes (B,), or class probabilities (B, C) where images are mixed. Returns
            the loss of each sample (B,) or their mean. With class weights it also gets `weight` (C,).
        metrics: See `Task`; `preds` are class probabilities (B, C), `target` classes (B,).
        class_weights: C factors on the loss, in the order of the class names; None weighs all classes alike.

    Raises:
        UserError: If the loss fails, or `class_weights` does not have one for each class.
    """

    labels, outputs = ClassLabels, ClassOutputs
    gives_logits = True
    temperature: float = 1.0
    """Logits are divided by it before they become probabilities: above 1 for a network that is too sure of itself."""

    def __init__(
        self,
        num_classes: int,
        loss: Callable[..., Tensor] = cross_entropy,
        metrics: Mapping[str, Metric] = NO_METRICS,
        class_weights: Sequence[float] | None = None,
    ):
        super().__init__(num_classes, loss, metrics, weights_of_classes(class_weights, num_classes))
        self.require_loss(torch.zeros(2, dtype=torch.long), "classes (2,)")

    @classmethod
    def metric_facts(cls, num_classes: int) -> dict[str, Any]:
        """Validation of arguments would wait for the device."""
        return {"task": "multiclass", "num_classes": num_classes, "validate_args": False}

    def predictions(self, outputs: Tensor) -> Tensor:
        """Class probabilities (B, C) of logits (B, C); each row sums to 1."""
        return (outputs.float() / self.temperature).softmax(dim=1)

    def code(self, outputs: str) -> str:
        """Softmax, without the temperature."""
        return f"{outputs}.softmax(1)"

    def metric_target(self, target: Tensor) -> Tensor:
        """Class indices (B,) of a target; of a mixed one (B, C), the class with the largest share."""
        return target if target.ndim == 1 else target.argmax(dim=1)

    def confusion(self) -> Metric:
        """A new confusion matrix."""
        return single_label_confusion(self.num_classes)

    def calibration(self, outputs: Outputs) -> dict[str, Any]:
        """The temperature that fits validation."""
        return {"temperature": fit_temperature(outputs.logits, outputs.targets)}

    def calibrate(self, calibration: Mapping[str, Any]) -> None:
        """Set the temperature."""
        self.temperature = float(calibration["temperature"])

    def describe(self, predictions: Sequence[float], names: Sequence[str], top_k: int) -> Described:
        """The likeliest class, how sure it is, the `top_k` likeliest ones, and all probabilities."""
        by_class = dict(zip(names, predictions, strict=True))
        top = sorted(by_class.items(), key=lambda item: -item[1])[:top_k]
        label, confidence = top[0]
        first = {"label": label, "confidence": confidence}
        shown = {"top": "; ".join(f"{name} {p:.4f}" for name, p in top), **columns_of(by_class)}
        return Described({**first, **shown}, {**first, "top": top, "probabilities": by_class}, [label])

    def agreement(self, predictions: Tensor, expected: Tensor) -> tuple[float, float]:
        """The share of samples with the same likeliest class, and the largest difference of a probability."""
        same = predictions.argmax(1) == expected.argmax(1)
        return same.float().mean().item(), (predictions - expected).abs().max().item()


def columns_of(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Probabilities by the columns of a table: `p(cat)`."""
    return {f"p({name})": p for name, p in probabilities.items()}


def weights_of_classes(weights: Any, num_classes: int) -> Tensor | None:
    """Weights (C,) as a tensor. Raises UserError if they are something else than C numbers, or None."""
    if weights is None:
        return None
    is_list = isinstance(weights, Sequence) and not isinstance(weights, str) and len(weights) == num_classes
    if not (is_list and all(isinstance(value, int | float) and value >= 0 for value in weights)):
        raise UserError(
            f"task.class_weights must be null, a list of {num_classes} numbers from 0 on, one for each class, or a "
            f"mapping from names of classes to numbers, but is {weights}. data.balance=loss computes them from the "
            f"data."
        )
    return torch.tensor(weights, dtype=torch.float)
