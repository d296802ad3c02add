"""The processes of a trainer, as those that make a file of a store together."""

from lightning import Trainer

from thaw.caching.store import ProcessGroup, SingleProcess


class TrainerProcessGroup:
    def __init__(self, trainer: Trainer):
        self.rank, self.world_size = trainer.global_rank, trainer.world_size
        self.all = trainer.strategy.reduce_boolean_decision


def together(trainer: Trainer | None) -> ProcessGroup:
    """None: there is no trainer, and one process."""
    return SingleProcess() if trainer is None else TrainerProcessGroup(trainer)
