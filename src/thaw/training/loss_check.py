"""Notices a loss that is NaN or infinite without making a step wait for the device."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from thaw.types import Batch

BATCHES_HELD = 4
"""Largest number of batches kept in memory until the device has reported their losses. Older ones are dropped."""


@dataclass
class CheckedStep:
    """A step whose loss is being checked, with all that is needed to run it again."""

    number: int
    """Counts steps of all splits; equal on all processes."""
    split: str
    batch_idx: int
    """Number of the batch in its epoch, from 0."""
    samples: Tensor
    """Index of each sample in its data set, (B,)."""
    batch: Batch | None
    """The batch as the loader gave it; None if the device reported too late."""
    loss: Tensor
    """Scalar."""
    finite: Tensor
    """Boolean scalar in host memory; valid once `copied` has happened."""
    copied: torch.Event | None
    """Happens when the device has written `finite`; None if it is valid at once."""


class LossCheck:
    """Watches the loss of every step and remembers the first that is not finite.

    On a CPU the result is known at once. An accelerator copies it to the host while the next steps are queued, and
    later calls look at the results that have arrived; until then the last few batches are kept in memory.
    """

    def __init__(self) -> None:
        self.failed: CheckedStep | None = None
        """The first step with a non-finite loss, as far as the device has reported."""
        self._pending: deque[CheckedStep] = deque()
        self._count = 0

    def add(self, split: str, batch_idx: int, batch: Batch, loss: Tensor) -> None:
        """Begin to check the loss of a step, without waiting."""
        loss = loss.detach()
        finite, copied = copy_to_host(torch.isfinite(loss))
        self._pending.append(CheckedStep(self._count, split, batch_idx, batch.index, batch, loss, finite, copied))
        self._count += 1
        if len(self._pending) > BATCHES_HELD:
            self._pending[-1 - BATCHES_HELD].batch = None
        self.look(wait=False)

    def look(self, wait: bool) -> CheckedStep | None:
        """Return the first step with a non-finite loss, if any.

        `wait=True` waits until the device has reported on all steps.
        """
        while self._pending and self.failed is None:
            step = self._pending[0]
            if step.copied is not None and wait:
                step.copied.synchronize()
            if step.copied is not None and not step.copied.query():
                break
            self._pending.popleft()
            if not step.finite:
                self.failed = step
                self._pending.clear()
        return self.failed


def copy_to_host(flag: Tensor) -> tuple[Tensor, torch.Event | None]:
    """Start to copy a tensor to the host; return the copy and the event after which it is valid."""
    copy = flag.to("cpu", non_blocking=True)  # into pinned memory
    if flag.device.type == "cpu":
        return copy, None
    copied = torch.Event(flag.device.type)
    copied.record()
    return copy, copied
