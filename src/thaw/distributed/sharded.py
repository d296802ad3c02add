"""What a run cannot do under a strategy that shards the parameters over its processes."""

from lightning import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy

from thaw.errors import UserError
from thaw.finetuning.phase import Plan


def is_sharded(strategy: Strategy) -> bool:
    """Return whether each process holds only a piece of the parameters."""
    return isinstance(strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy))


def require_fitting(trainer: Trainer, plan: Plan) -> None:
    """Raise UserError if the trainer's strategy shards, and cannot do what the run asks for."""
    if not is_sharded(trainer.strategy):
        return
    name = type(trainer.strategy).__name__
    if len(plan.phases) > 1:
        raise UserError(
            f"{name} shards parameters when it wraps, and is not known to follow a plan of {len(plan.phases)} phases: "
            f"take trainer.strategy=ddp, or a plan of one phase"
        )
    if not isinstance(trainer.strategy, FSDPStrategy):
        raise UserError(f"{name} keeps checkpoints that other commands cannot read: take trainer=ddp or trainer=fsdp")
    if trainer.gradient_clip_val:
        raise UserError(f"{name} cannot clip gradients here: type trainer.gradient_clip_val=null, or trainer=ddp")
    if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise UserError(f"{name} has pieces of the weights, and callbacks=ema averages whole ones: take trainer=ddp")
    if trainer.fast_dev_run or trainer.checkpoint_callback is None:  # type: ignore[attr-defined]
        raise UserError(f"{name} leaves its weights in checkpoints only, and this run keeps none: take trainer=ddp")
