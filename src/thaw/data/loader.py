"""Loaders: where the batches of an epoch come from, and the processes that load them."""

import gc
import logging
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from traceback import format_exception
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from thaw.data.sampler import EpochBatches
from thaw.types import Batch, BatchRequest

log = logging.getLogger(__name__)

SHARED_MEMORY = "/dev/shm"
BATCHES_IN_MEMORY = 6
"""Batches of a loader process that are there at once: 2 that wait and one that is made, of train and of val."""


class EpochLoader:
    """Loader of a split. Each epoch decides again, at its first batch, whether batches are raw samples or activations.

    Args:
        sampler: yields the samples of each batch.
        make_raw: makes the DataLoader of raw samples; called when it is first needed.
        batches: function from this loader to the batches of the current epoch.
        batches_done: function that returns how many batches of the current epoch a resumed run has already done.
    """

    def __init__(
        self,
        sampler: EpochBatches,
        make_raw: Callable[[], DataLoader[Any]],
        batches: Callable[["EpochLoader"], Iterator[Batch]],
        batches_done: Callable[[], int],
    ):
        self._make_raw, self._batches, self._batches_done = make_raw, batches, batches_done
        # Lightning reads both attributes, and calls `sampler.set_epoch`.
        self.sampler, self.batch_sampler = sampler, None

    @cached_property
    def raw(self) -> DataLoader[Any]:
        """Batches of raw samples. The DataLoader and its processes stay for later epochs."""
        return self._make_raw()

    @property
    def _iterator(self) -> Any:
        """Iterator of the raw DataLoader. Lightning uses it to shut down the loader processes after training."""
        return vars(self)["raw"]._iterator if "raw" in vars(self) else None

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        if "raw" in vars(self):
            self.raw._iterator = iterator

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        self.sampler.first_batch = self._batches_done()
        yield from self._batches(self)

    def state_dict(self) -> dict[str, Any]:
        """Empty on purpose: its presence marks the loader as resumable for Lightning, which knows the batch itself."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load, see `state_dict`."""


class BatchLoader(DataLoader[Any]):
    """A DataLoader of whole batches, one a request: `dataset[request]`.

    Its processes start without garbage collection, until `init_worker` has frozen the garbage. Garbage of the parent is
    not to be finalized in a loader process: an iterator of torch, say, would complain there.

    Args:
        dataset: gives a batch for a request.
        requests: what is asked of the dataset.
        num_workers: loader processes; 0 loads in the main process.
        persistent: whether loader processes wait for the next epoch.
        pin_memory: see DataLoader.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        requests: Iterable[Any],
        num_workers: int,
        persistent: bool = False,
        pin_memory: bool = False,
    ):
        super().__init__(
            HandingOver(dataset) if num_workers else dataset,
            sampler=requests,
            batch_size=None,  # a request goes to the dataset as it is
            collate_fn=_as_it_is,
            num_workers=num_workers,
            worker_init_fn=init_worker,
            persistent_workers=persistent and num_workers > 0,
            pin_memory=pin_memory,
        )

    def __iter__(self) -> Any:
        batches = super().__iter__()
        return map(_received, batches) if self.num_workers else batches

    def _get_iterator(self) -> Any:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return super()._get_iterator()
        finally:
            if was_enabled:
                gc.enable()


class Failure:
    """An exception of a loader process on its way to the parent. Of others torch keeps no more than the text."""

    def __init__(self, error: Exception):
        self.error, self.traceback = error, "".join(format_exception(error)).rstrip()


class LoaderProcessError(Exception):
    """Cause of an exception from a loader process: its traceback there."""


class HandingOver(Dataset[Any]):
    """The dataset of loader processes: its batches lie in shared memory, and an exception comes as a `Failure`.

    Torch moves batches there in a thread of the loader process. An error in it is printed, and the parent would wait
    for that batch for ever.
    """

    def __init__(self, dataset: Dataset[Any]):
        self.dataset = dataset

    def __getitem__(self, request: Any) -> Any:
        try:
            return apply_to_collection(self.dataset[request], Tensor, Tensor.share_memory_)
        except Exception as error:
            try:
                pickle.loads(pickle.dumps(error))  # noqa: S301  # of this process
            except Exception:  # an exception class with arguments of its own
                error = RuntimeError(f"{type(error).__name__}: {error}")
            return Failure(error)


def _received(batch: Any) -> Any:
    if isinstance(batch, Failure):
        raise batch.error from LoaderProcessError(f"in a loader process:\n{batch.traceback}")
    return batch


class MappedDataset(Dataset[Batch]):
    """Applies the function `then` to each batch of `dataset`."""

    def __init__(self, dataset: Dataset[Batch], then: Callable[[Batch], Batch]):
        self.dataset, self.then = dataset, then

    def __getitem__(self, request: BatchRequest) -> Batch:
        return self.then(self.dataset[request])


def _as_it_is(batch: Any) -> Any:
    return batch


def default_workers() -> int:
    """Number of loader processes: one for each core that this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def workers_that_fit(workers: int, batch_bytes: int, free_bytes: int) -> int:
    """As many loader processes, up to `workers`, as shared memory has room for: they hand over their batches in it.

    Where it is full, a loader process is killed, or waits for ever. In Docker it has 64 MB unless --shm-size is given.
    """
    return min(workers, free_bytes // (BATCHES_IN_MEMORY * max(batch_bytes, 1)))


def workers_with_room(workers: int, batch_bytes: int, num_processes: int = 1) -> int:
    """`workers`, or fewer with a warning if shared memory has no room for the batches of so many.

    Args:
        workers: loader processes wanted.
        batch_bytes: size of a batch.
        num_processes: processes of the run on this machine, which share the memory.
    """
    if (free := free_shared_memory()) is None:
        return workers
    fitting = workers_that_fit(workers, batch_bytes, free // num_processes)
    if fitting < workers:
        log.warning(
            "%d loader processes in place of %d: shared memory (%s) has %.0f MB left, and a batch takes %.1f MB. "
            "Docker has more of it with --shm-size=8g",
            *(fitting, workers, SHARED_MEMORY, free / 1e6, batch_bytes / 1e6),
        )
    return fitting


def free_shared_memory() -> int | None:
    """Free bytes of shared memory; None where it is no file system."""
    return shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else None


def init_worker(worker: int) -> None:
    """Lower the priority of a loader process, and end it when its parent ends.

    Where cores are scarce, training comes first: a kernel waits for the slowest of its threads. Torch's own watchdog
    looks at the process that started the worker, which may be a fork server that outlives the parent.
    """
    gc.freeze()  # what was inherited is the parent's to finalize
    gc.enable()
    Queue._on_queue_feeder_error = staticmethod(_end_after)  # type: ignore[attr-defined]
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)
        # Leave the run's process group, to which terminals and torchrun send SIGINT and SIGTERM: the run answers a
        # signal by saving, for which it may need batches, and ends these processes itself.
        os.setpgrp()
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True, name="thaw-loader").start()


def _end_after(error: Exception, batch: Any) -> None:
    """End this process if a batch cannot be sent: the parent would wait for it."""
    print(f"a batch cannot be sent to the run: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _end_with(process: BaseProcess) -> None:
    """End this process as soon as `process` has ended."""
    process.join()
    os._exit(1)
