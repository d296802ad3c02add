"""The processes of one run among themselves: what the first one decides, who reports an error, how all end."""

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from thaw.distributed.environment import (
    FAILURE_VARIABLE,
    PARENT_VARIABLE,
    asked_trainer,
    copies_process,
    count_devices,
    launched_rank,
)
from thaw.errors import NonFiniteLossError, UserError

if TYPE_CHECKING:
    from torch.distributed import Store

LOOK_SECONDS = 0.5
GRACE_SECONDS = 3
"""After another process failed, or is gone."""
MOST_SECONDS = 60
"""For what the first process has to do alone at the end."""
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "recvValue failed")
"""What collectives say when another process has ended."""


class Ranks:
    """This process among those of its run. `store`: values that all of them see; None where there is one process."""

    def __init__(self, rank: int = 0, world_size: int = 1, store: "Store | None" = None):
        self.rank, self.world_size, self.store = rank, world_size, store
        self._decisions = 0
        self._over = False  # the others end, too
        self._reports: bool | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, on this process."""
        return self._over

    def as_first(self, decide: Callable[[], Any]) -> Any:
        """What `decide` gives on the first process, plain values."""
        if self.store is None:
            return decide()
        self._decisions += 1
        name = f"decision{self._decisions}"
        if self.is_first:
            value = decide()
            self.store.set(name, json.dumps(value))
            return value
        return json.loads(self.store.get(name))

    def reports(self) -> bool:
        """Called with an error: whether it is this process that tells of it. The others are told to end."""
        if self.store is None:
            return self.is_first
        if self._reports is None:
            try:
                self._reports = not self._over and self.store.add("failed", 1) == 1
                self._leave(most_seconds=2 * LOOK_SECONDS)
            except RuntimeError:  # the first process is gone, and the store with it
                self._reports = False
        return self._reports

    def let_the_first_report(self) -> None:
        """Where all have the same error: the first one keeps what there is to keep, and must not be ended before."""
        deadline = time.monotonic() + MOST_SECONDS
        while self.store is not None and not self.is_first and time.monotonic() < deadline:
            if self._over or self.store.check(["failed"]):
                break
            time.sleep(LOOK_SECONDS / 10)

    def leave(self) -> None:
        """At the end of the run: the first process has the store, and leaves last."""
        if self.store is not None:
            self._leave(most_seconds=MOST_SECONDS)

    def _leave(self, most_seconds: float) -> None:
        assert self.store is not None
        if self._over:
            return
        self._over = True
        left, deadline = self.store.add("left", 1), time.monotonic() + most_seconds
        while self.is_first and left < self.world_size and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 10)
            left = self.store.add("left", 0)

    def watch(self) -> None:
        """In the background: ends this process when another one of the run fails, or the one that waits for it."""
        threading.Thread(target=self._watch, daemon=True, name="thaw-ranks").start()

    def _watch(self) -> None:
        # srun is no parent of its tasks.
        parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else int(os.environ.get(PARENT_VARIABLE, 0))
        while not parent or os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
            if self._over:
                continue
            try:
                assert self.store is not None
                failed = self.store.check(["failed"])
                if failed and not self._over:
                    self._over = True
                    self.store.add("left", 1)
            except RuntimeError:
                failed = True
            if failed:
                time.sleep(GRACE_SECONDS)  # it may be about to end by itself
                break
        os._exit(1)  # no less: it may wait for a process that is gone


_ranks = Ranks()


def ranks() -> Ranks:
    return _ranks


def join(cfg: DictConfig) -> Ranks:
    """Meet the other processes of this run. Raises UserError where there are others than the trainer asks for."""
    global _ranks
    if _ranks.store is not None and not _ranks.is_over:
        return _ranks
    trainer = asked_trainer(cfg)
    devices, num_nodes = count_devices(trainer), trainer.get("num_nodes", 1)
    found = launched_rank()
    if found is None:
        if devices * num_nodes > 1 and not copies_process(trainer):
            raise UserError(
                f"trainer.devices={devices} from Python: Lightning would start this program again. Type python -m "
                f"thaw.train ..., or take trainer.strategy=ddp_spawn"
            )
        return _ranks
    rank, world_size = found
    if devices * num_nodes != world_size:
        raise UserError(
            f"trainer.devices={devices} on trainer.num_nodes={num_nodes} make {devices * num_nodes} processes, but "
            f"{world_size} were started: give torchrun --nproc-per-node={devices} --nnodes={num_nodes}, or srun "
            f"--ntasks-per-node={devices} --nodes={num_nodes}"
        )
    if world_size > 1:
        from torch.distributed import PrefixStore

        before = _ranks.store  # of a run that this program trained before
        store = _store(rank, world_size) if before is None else PrefixStore("next", before)
        _ranks = Ranks(rank, world_size, store)
        _ranks.watch()
    return _ranks


def reports(error: BaseException) -> bool:
    """Whether this process is to tell of the error. Before the processes met all of them fail alike."""
    found = launched_rank()
    if _ranks.store is None and found is not None:
        return found[0] == 0
    if is_lost(error):
        time.sleep(GRACE_SECONDS / 2)  # the one that failed has the better message
    elif isinstance(error, NonFiniteLossError):
        _ranks.let_the_first_report()
    return _ranks.reports()


def is_lost(error: BaseException) -> bool:
    """Whether a collective failed because another process is gone."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LOST)


def report_to_parent(message: str, traceback_printed: bool) -> bool:
    """To the process that waits for this one, if there is one."""
    if (file := os.environ.get(FAILURE_VARIABLE)) is None:
        return False
    with open(file, "w", encoding="utf-8", errors="replace") as written:
        json.dump({"message": message, "traceback_printed": traceback_printed}, written)
    return True


def _store(rank: int, world_size: int) -> "Store":
    """The one that Lightning's process group is going to meet at, too. Raises UserError for a job of SLURM that
    Lightning does not understand."""
    from lightning.fabric.plugins.environments import SLURMEnvironment
    from torch.distributed import PrefixStore, rendezvous

    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        try:
            slurm = SLURMEnvironment()
        except RuntimeError as error:  # --ntasks in place of --ntasks-per-node
            raise UserError(str(error)) from None
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timedelta(minutes=10)))
    return PrefixStore("thaw", store)
