"""Where the batches of an epoch come from."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader, Dataset

from thaw.data.sampler import EpochBatches
from thaw.types import Batch, BatchRequest


class Loader:
    """The batches of a split. Where they come from is decided anew each epoch, when the first one is asked for."""

    def __init__(
        self,
        sampler: EpochBatches,
        raw: Callable[[], DataLoader[Any]],
        batches: Callable[["Loader"], Iterator[Batch]],
        done: Callable[[], int] = lambda: 0,
    ):
        """`done`: how many batches of the epoch a resumed run has behind it."""
        self._raw, self._batches, self._done = raw, batches, done
        # Lightning tells the sampler the epoch, and asks for both.
        self.sampler, self.batch_sampler = sampler, None

    @cached_property
    def raw(self) -> DataLoader[Any]:
        """Of samples as they are. Made when it is first needed, and then kept with its processes."""
        return self._raw()

    @property
    def _iterator(self) -> Any:
        """Of the processes, which Lightning ends by it when training is over."""
        return vars(self)["raw"]._iterator if "raw" in vars(self) else None

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        if "raw" in vars(self):
            self.raw._iterator = iterator

    def of_samples(self) -> Iterator[Batch]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        self.sampler.first_batch = self._done()
        yield from self._batches(self)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: Lightning knows how far the epoch is. That there is one tells it that the loader can go on there."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing, see above."""


class MappedDataset(Dataset[Batch]):
    """The batches of a dataset, each as `then` leaves it."""

    def __init__(self, dataset: Dataset[Batch], then: Callable[[Batch], Batch]):
        self.dataset, self.then = dataset, then

    def __getitem__(self, key: BatchRequest) -> Batch:
        return self.then(self.dataset[key])


def init_worker(worker: int) -> None:
    """Loader processes come second where cores are scarce: a kernel waits for the slowest of its threads. And they end
    with the process that they load for, however it ends: torch looks at who started them, maybe a fork server."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)
        # Out of the run's process group, to which terminals and torchrun send SIGINT and SIGTERM: the run answers a
        # signal by saving, for which it may need batches, and ends these processes itself.
        os.setpgrp()
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True, name="thaw-loader").start()


def _end_with(process: BaseProcess) -> None:
    process.join()
    os._exit(1)
