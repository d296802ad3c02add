"""Coordinates the processes of one run: the first one decides, one of them reports an error, and all end together.

torch's launcher (launch.py, torchrun) ends the other processes of a machine after one has failed. But it cannot tell
the first error from those that follow from it, waits 30 seconds for a process that hangs in a collective, and is not
there under srun; and no process notices that its launcher was killed. The store and the watching thread here fill these
gaps.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from thaw.distributed.environment import (
    count_devices,
    launched_rank,
    lightning_starts_processes,
    node_and_local_rank,
    requested_trainer,
)
from thaw.errors import NonFiniteLossError, UserError

if TYPE_CHECKING:
    from torch.distributed import Store

# Time between two checks whether another process has failed.
LOOK_SECONDS = 0.5
# How long a process may take to end by itself after another one failed.
GRACE_SECONDS = 3
# How long processes wait for each other at the end of a run.
MOST_SECONDS = 60
# Parts of the error message of a collective if another process has ended.
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "recvValue failed")


class Ranks:
    """The place of this process among the processes of its run; `Ranks()` is a run of one process.

    Args:
        rank: number of this process, from 0.
        world_size: how many processes the run has.
        store: values that all processes see; None if there is only one process.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, store: "Store | None" = None):
        self.rank, self.world_size, self.store = rank, world_size, store
        self._decisions = self._turns = 0
        self._over = False
        self._reports: bool | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that decides and writes."""
        return self.rank == 0

    @property
    def is_over(self) -> bool:
        """Whether the run has ended on this process."""
        return self._over

    def as_first(self, decide: Callable[[], Any]) -> Any:
        """Call `decide` on the first process and return its result, plain JSON values, on all.

        Collective: call on every rank.
        """
        if self.store is None:
            return decide()
        self._decisions += 1
        key = f"decision{self._decisions}"
        if self.is_first:
            value = decide()
            self.store.set(key, json.dumps(value))
            return value
        self._wait_for(key)
        return json.loads(self.store.get(key))

    @contextmanager
    def first_per_node(self) -> Iterator[bool]:
        """Run the `with` block on one process of each machine, then on the machine's others.

        Yields whether this is the process that goes first. Collective: call on every rank.
        """
        if self.store is None:
            yield True
            return
        self._turns += 1
        node, local_rank = node_and_local_rank()
        key = f"turn{self._turns} of node {node}"
        if local_rank:
            self._wait_for(key)
        yield local_rank == 0
        if local_rank == 0:
            self.store.set(key, "")

    def reports(self) -> bool:
        """Return whether this process is the first to fail, which reports the error. The others then end."""
        if self.store is None:
            return self.is_first
        if self._reports is None:
            try:
                self._reports = not self._over and self.store.add("failed", 1) == 1
                self.leave(most_seconds=2 * LOOK_SECONDS)
            except RuntimeError:  # the first process has ended, and under srun the store with it
                self._reports = False
        return self._reports

    def let_the_first_report(self) -> None:
        """Wait until the first process reports an error that all have; it may need to write something first."""
        if self.store is not None and not self.is_first:
            self._wait_for("failed", MOST_SECONDS)

    def leave(self, most_seconds: float = MOST_SECONDS) -> None:
        """End the run on this process. The first one waits for all others: under srun it holds the store."""
        if self.store is None or self._over:
            return
        self._over = True
        if self.store.add("left", 1) == self.world_size:
            self.store.set("all left", "")
        if self.is_first:
            self._wait_for("all left", most_seconds)

    def watch(self) -> None:
        """Start a thread that ends this process if another one of the run, or the launcher, has failed."""
        threading.Thread(target=self._watch, daemon=True, name="thaw-ranks").start()

    def _watch(self) -> None:
        # Under srun the parent may be anything.
        parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        while parent is None or os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
            if not self._over and self._another_failed():
                time.sleep(GRACE_SECONDS)
                break
        os._exit(1)  # not sys.exit: the main thread may be waiting for a process that has ended

    def _another_failed(self) -> bool:
        assert self.store is not None
        try:
            failed = self.store.check(["failed"]) and not self._over
            if failed:
                self.leave(most_seconds=0)
        except RuntimeError:  # the store's process has ended
            return not self._over
        return failed

    def _wait_for(self, key: str, most_seconds: float = float("inf")) -> None:
        """Wait until the store has a key. Polls: a blocking wait would hold up signals and the watching thread."""
        assert self.store is not None
        deadline = time.monotonic() + most_seconds
        while not self.store.check([key]) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 10)


_ranks = Ranks()


def ranks() -> Ranks:
    """Return the `Ranks` of the current run: which of its processes this one is."""
    return _ranks


def join(cfg: DictConfig) -> Ranks:
    """Connect to the other processes of this run. Raises UserError if the trainer asks for another number of them."""
    global _ranks
    if _ranks.store is not None and not _ranks.is_over:
        return _ranks
    trainer = requested_trainer(cfg)
    devices, num_nodes = count_devices(trainer), trainer.get("num_nodes", 1)
    rank_and_size = launched_rank()
    if rank_and_size is None:
        if devices * num_nodes > 1 and not lightning_starts_processes(trainer):
            raise UserError(
                f"trainer.devices={devices} from Python: Lightning would start this program again. Type python -m "
                f"thaw.train ..., or take trainer.strategy=ddp_spawn"
            )
        return _ranks
    rank, world_size = rank_and_size
    if devices * num_nodes != world_size:
        raise UserError(
            f"trainer.devices={devices} on trainer.num_nodes={num_nodes} make {devices * num_nodes} processes, but "
            f"{world_size} were started: give torchrun --nproc-per-node={devices} --nnodes={num_nodes}, or srun "
            f"--ntasks-per-node={devices} --nodes={num_nodes}"
        )
    if world_size > 1:
        from torch.distributed import PrefixStore  # here, because `--help` must not wait for torch

        earlier_store = _ranks.store  # of a run that this program trained before
        store = _open_store(rank, world_size) if earlier_store is None else PrefixStore("next", earlier_store)
        _ranks = Ranks(rank, world_size, store)
        _ranks.watch()
    return _ranks


def reports(error: BaseException) -> bool:
    """Return whether this process is the one of its run to report the error."""
    rank_and_size = launched_rank()
    if _ranks.store is None and rank_and_size is not None and rank_and_size[0] > 0:
        time.sleep(GRACE_SECONDS)  # before they connect, all fail alike; the launcher ends the others when one ends
        return False
    if is_peer_lost(error):
        time.sleep(GRACE_SECONDS / 2)  # the process that failed has the better message
    elif isinstance(error, NonFiniteLossError):
        _ranks.let_the_first_report()
    if rank_and_size is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from the launcher: the report must be complete first
    return _ranks.reports()


def leave_message(message: str) -> None:
    """Write an error message into the file from which torch's launcher, if there is one, reads it."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = json.dumps({"message": message, "timestamp": int(time.time())})
        Path(file).write_text(content, encoding="utf-8")


def is_peer_lost(error: BaseException) -> bool:
    """Return whether a collective failed because another process has ended."""
    return isinstance(error, RuntimeError) and any(text in str(error) for text in LOST)


def _open_store(rank: int, world_size: int) -> "Store":
    """Open the store at the address that Lightning's process group will use, too.

    Raises UserError if Lightning cannot read the SLURM job.
    """
    from lightning.fabric.plugins.environments import SLURMEnvironment  # here for the same reason
    from torch.distributed import PrefixStore, rendezvous

    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        try:
            slurm = SLURMEnvironment()
        except RuntimeError as error:  # --ntasks in place of --ntasks-per-node
            raise UserError(str(error)) from None
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timedelta(minutes=10)))
    return PrefixStore("thaw", store)
