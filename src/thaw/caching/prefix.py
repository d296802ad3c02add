"""The frozen prefix of a network, computed once: its outputs are constants as long as it is frozen."""

import logging
from collections.abc import Iterator
from functools import cached_property
from math import inf, prod

import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn

from thaw.caching.activations import Activations, states_of
from thaw.caching.keys import environment
from thaw.caching.outputs import Outputs
from thaw.caching.store import Store
from thaw.data.loader import Loader
from thaw.data.module import DataModule
from thaw.errors import UserError
from thaw.finetuning.phase import Plan
from thaw.models.network import Network
from thaw.models.shapes import outputs
from thaw.types import Batch, TokenStates

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class FrozenPrefix:
    """Says which batches enter the network behind the frozen prefix, and makes them.

    `views`: so many different ways training samples look while a phase reads what is kept; 1: as in evaluation.
    `dtype`: of what is kept; None: as it is computed. `batch_size`: of the samples that are computed at once.
    `averages`: validation is of averaged weights. `mixes_pixels`: training mixes images in a way that makes no sense
    behind the first stage.
    """

    def __init__(
        self,
        network: Network,
        plan: Plan,
        data: DataModule,
        store: Store,
        views: int,
        dtype: str | None,
        batch_size: int,
        averages: bool = False,
        mixes_pixels: bool = False,
    ):
        if not (isinstance(views, int) and views > 0):
            raise UserError(f"caching.views is a whole number from 1 on, not {views}. To keep nothing: caching=off")
        if dtype is not None and dtype not in DTYPES:
            raise UserError(f"caching.dtype is null, {', '.join(DTYPES)}, not {dtype}")
        if not (isinstance(batch_size, int) and batch_size > 0):
            raise UserError(f"caching.batch_size is a whole number from 1 on, not {batch_size}")
        self.network, self.plan, self.data, self.views = network, plan, data, views
        self.averages, self.mixes_pixels = averages, mixes_pixels
        self.budget_bytes, self.dtype = store.budget_bytes, None if dtype is None else DTYPES[dtype]
        self.computed = Outputs(network, data, store, self.dtype, batch_size)
        environment()  # of the code that runs, and not of what it may be edited to before the first phase needs it
        self._phase: int | None = None
        self._kept: dict[tuple[str, int | None, int], Activations | None] = {}

    def view(self, epoch: int) -> int | None:
        """What training samples look like in an epoch that reads what is kept; None: as in evaluation."""
        return None if self.views == 1 else epoch % self.views

    def start(self, split: str) -> int:
        """The stage that the batches of now enter; 0: they are raw samples.

        Depends on the configuration and the epoch alone, and not on what happens to lie on the disk.
        """
        trainer = self._trainer
        limit = getattr(trainer, f"limit_{split}_batches")
        if isinstance(limit, int) or limit < 1.0:  # of an epoch of few batches most would be computed in vain
            return 0
        if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            return 0  # weights in pieces; some strategies that cut them up are a kind of DDP
        untouched = self.plan.never_trained(self._epoch)
        prefix = untouched if self._epoch is None else self.plan.frozen_prefix(self._epoch)
        if split == "train" and self.mixes_pixels:
            return 0
        if split != "train" and self.averages:
            prefix = untouched  # behind it the average still moves where the weights no longer do
        return prefix if prefix and self._is_worth_it(prefix) else 0

    def batches(self, split: str, loader: Loader) -> Iterator[Batch]:
        """Those of the epoch that is now."""
        epoch, start = self._epoch, self.start(split)
        if not start:
            return loader.of_samples()
        view = self.view(epoch) if split == "train" and self.data.augments and epoch is not None else None
        # As long as a phase lasts, the weights of its prefix are the same.
        phase = None if epoch is None else self.plan.index(epoch)
        if phase != self._phase:
            self._phase, self._kept = phase, {}
        if (asked := (split, view, start)) not in self._kept:
            self._kept[asked] = self.computed.of(split, view, start)
        if (kept := self._kept[asked]) is not None:
            return kept.batches(loader.sampler)
        return (self.computed.run(batch, start) for batch in loader.raw)  # the same, computed when it is their turn

    def _is_worth_it(self, prefix: int) -> bool:
        """Pooled features always; what is larger, where all of it is within the budget."""
        if prefix == len(self.network.stages) - 1:
            return True
        num_bytes, of_tokens = self._bytes[prefix]
        train, val = (self._count(split, of_tokens) for split in ("train", "val"))
        return num_bytes * (train * (self.views if self.data.augments else 1) + val) <= self.budget_bytes

    def _count(self, split: str, of_tokens: bool) -> int:
        samples = self.data.parts[split]
        lengths = self.data.lengths
        return int(lengths[samples].sum()) if of_tokens and lengths is not None else len(samples)

    @cached_property
    def _bytes(self) -> list[tuple[float, bool]]:
        """For each number of stages what their output takes, at most, and whether for a token or a sample.

        Infinitely much where it cannot be told without computing it.
        """
        found: list[tuple[float, bool]] = [(0, False)]
        backbone = dict(list(self.network.stages.items())[:-1])
        modes = [stage.training for stage in backbone.values()]
        try:
            for name, output in outputs(backbone, self.data.input_spec):
                if name != "input":
                    of_tokens, states = isinstance(output, TokenStates), states_of(output)
                    itemsize = (self.dtype or states.dtype).itemsize
                    found.append((prod(states.shape[2 if of_tokens else 1 :]) * itemsize, of_tokens))
        except Exception:  # whatever a network raises that looks at its numbers
            log.debug("sizes of the outputs of stages are not known", exc_info=True)
            found += [(inf, False)] * (len(backbone) + 1 - len(found))
        for stage, mode in zip(backbone.values(), modes, strict=True):
            stage.train(mode)
        return found

    @property
    def _trainer(self) -> Trainer:
        assert self.data.trainer is not None, "only a trainer asks for batches"
        return self.data.trainer

    @property
    def _epoch(self) -> int | None:
        """None: outside training."""
        return self._trainer.current_epoch if self._trainer.state.fn == TrainerFn.FITTING else None
