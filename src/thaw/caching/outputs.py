"""Computes the outputs of a network's first stages for all samples of a split, and keeps them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_start_method
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from thaw.caching.activations import ARRAY, Activations, is_channels_last, rows_of, states_of
from thaw.caching.entry import CacheEntry, Layout, Writer
from thaw.caching.keys import code_digest, environment, network_digest, values_digest
from thaw.caching.store import RunProcesses, Store
from thaw.console import progress
from thaw.data.module import DataModule
from thaw.models.network import Network
from thaw.storage import digest, digest_of_tensors
from thaw.types import Batch, BatchRequest, TokenStates


@dataclass(frozen=True)
class Part:
    """Samples of one split, all of the same view."""

    split: str
    samples: NDArray[np.int64]
    """In the order in which they are computed and kept."""
    view: int | None


class Outputs:
    """Of stages that are frozen.

    `dtype`: of what is kept; None: as it is computed. `batch_size`: so many samples are computed at once, always the
    same ones, so that a file made again has the same bits.
    """

    def __init__(self, network: Network, data: DataModule, store: Store, dtype: torch.dtype | None, batch_size: int):
        self.network, self.data, self.store = network, data, store
        self.dtype, self.batch_size = dtype, batch_size

    def of(self, split: str, view: int | None, end: int) -> Activations | None:
        """What leaves stage `end` - 1, from the disk; it is put there where it is not yet. None where it cannot be."""
        part = Part(split, self._in_order(self.data.parts[split]), view)
        keys = self._keys(part, end)
        ranks = RunProcesses.of(self._trainer)
        kept = self.store.open(keys[end])
        if not ranks.all(kept is not None):
            kept = self._made(part, keys, end, ranks)
        return None if kept is None else self._activations(kept, part, end)

    def run(self, batch: Batch, end: int) -> Batch:
        """Through the stages from the one that the batch enters to stage `end` - 1, on the device."""
        stages = list(self.network.stages.values())[batch.start : end]
        assert not any(stage.training for stage in stages), "what is kept is of evaluation mode"
        batch = self._trainer.strategy.batch_to_device(self._trainer.precision_plugin.convert_input(batch))
        output: Any = batch.inputs
        with torch.no_grad(), self._trainer.precision_plugin.forward_context():
            for stage in stages:
                output = stage(output)
        if isinstance(output, TokenStates):
            output = output._replace(calls=None)  # the network makes it again
        return batch._replace(inputs=output, start=end)

    def _made(self, part: Part, keys: dict[int, str], end: int, ranks: RunProcesses) -> CacheEntry | None:
        outputs = self._computed(part, keys, end, ranks)
        first = next(outputs)
        states = states_of(first.output)
        dtype = self.dtype or states.dtype
        rows, channels_last = self._rows(part, first.output), is_channels_last(first.output)

        def fill(write: Writer) -> None:
            for one in chain([first], outputs):
                write(ARRAY, int(rows[one.place]), rows_of(one.output, dtype, channels_last))

        names = list(self.network.stages)
        about = {
            "what": f"output of {names[end - 1]}",
            "samples": f"{len(part.samples):,} {part.split}" + ("" if part.view is None else f", view {part.view}"),
            "run": str(self._trainer.default_root_dir),
            "computed": str(states.dtype).removeprefix("torch."),
            "channels_last": channels_last,
            "tokens": isinstance(first.output, TokenStates),
        }
        layout = Layout(dtype, (int(rows[-1]), *rows_of(first.output, dtype, channels_last).shape[1:]))
        return self.store.get(keys[end], about, {ARRAY: layout}, fill, ranks)

    def _computed(self, part: Part, keys: dict[int, str], end: int, ranks: RunProcesses) -> "Iterator[Computed]":
        """The share of this rank, at least one batch."""
        places = range(0, len(part.samples), self.batch_size)
        share = places[ranks.rank :: ranks.world_size] or places[:1]
        wanted = [BatchRequest(part.samples[place : place + self.batch_size].tolist(), part.view) for place in share]
        batches = self._nearest(part, keys, end, wanted, ranks)
        names = list(self.network.stages)[:end]
        what = f"{names[0]} ... {names[-1]} of {len(part.samples):,} {part.split} samples"
        for place, batch in zip(share, progress(batches, len(share), what), strict=True):
            with torch.inference_mode():
                output: Any = (batch if batch.start == end else self.run(batch, end)).inputs
            yield Computed(place, output)

    def _nearest(
        self, part: Part, keys: dict[int, str], end: int, wanted: list[BatchRequest], ranks: RunProcesses
    ) -> Iterator[Batch]:
        """From what is kept, unrounded, of the most stages; else the samples themselves. The same on all ranks, which
        may have to read the samples together."""
        for start in range(end - 1, 0, -1):
            kept = self.store.open(keys[start])
            unrounded = kept is not None and kept.arrays[ARRAY].dtype == getattr(torch, kept.about["computed"])
            if ranks.all(unrounded):
                assert kept is not None
                return self._activations(kept, part, start).batches(wanted)
        then = partial(self.run, end=end) if self._in_processes(end) else None
        return iter(self.data.raw_loader(part.split, wanted, then=then))

    def _in_processes(self, end: int) -> bool:
        """Whether loader processes run the stages, too. Cores do more with samples of their own than with shares of a
        kernel: two of them took 0.6 s for 500 images, not 0.8. Without fork each would have to be sent the network, and
        feature maps may be too large for the memory that processes share."""
        gives_features = end == len(self.network.stages) - 1
        on_cpu = self._trainer.strategy.root_device.type == "cpu"
        return gives_features and on_cpu and self.data.num_workers > 0 and get_start_method() == "fork"

    def _activations(self, kept: CacheEntry, part: Part, start: int) -> Activations:
        lengths = self.data.lengths if kept.about["tokens"] else None
        lengths = None if lengths is None else lengths[part.samples]
        return Activations(kept, start, part.samples, self.data.targets, lengths, self.data.width)

    def _rows(self, part: Part, output: Any) -> NDArray[np.int64]:
        """(N + 1,): where the rows of each sample begin; the last number is that of all rows."""
        if not isinstance(output, TokenStates):
            return np.arange(len(part.samples) + 1)
        assert self.data.lengths is not None
        return np.concatenate([[0], np.cumsum(self.data.lengths[part.samples])])

    def _in_order(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Whatever order they were drawn in; texts of similar length together."""
        samples = np.sort(samples)
        return samples if self.data.lengths is None else samples[np.argsort(self.data.lengths[samples], kind="stable")]

    def _keys(self, part: Part, end: int) -> dict[int, str]:
        """By the number of stages: digests of all that their output depends on."""
        trainer = self._trainer
        computed = (trainer.strategy.root_device.type, str(trainer.precision), str(self.dtype), self.batch_size)
        samples = [*self.data.contents(part.samples), code_digest(type(self.data), Network, Activations)]
        if part.view is not None:  # what it shows depends on the number of a sample
            samples += map(str, part.samples.tolist())
        backbone = nn.ModuleDict(list(self.network.stages.items())[:-1])  # stages may refer to each other's modules
        choices = values_digest([self.data.recipe(part.view), computed])
        found = digest(environment(), *samples, choices, network_digest(backbone))
        keys = {}
        for number, stage in enumerate(list(self.network.stages.values())[:end], start=1):
            tensors = {**dict(stage.named_parameters()), **dict(stage.named_buffers())}
            found = digest(found, digest_of_tensors(tensors))
            keys[number] = f"frozen-{found}"
        return keys

    @property
    def _trainer(self) -> Trainer:
        assert self.data.trainer is not None, "only a trainer asks for batches"
        return self.data.trainer


@dataclass(frozen=True)
class Computed:
    place: int
    """Of its first sample among all."""
    output: Tensor | TokenStates
