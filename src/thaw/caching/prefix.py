"""Computes the activations behind the frozen stages of a network for all samples of a split, and keeps them."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_start_method
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor

from thaw.caching.activations import ARRAY, Activations, is_channels_last, to_rows
from thaw.caching.cut import Cut, cut
from thaw.caching.entry import CacheEntry, Layout, Writer
from thaw.caching.keys import UndigestibleError, code_digest, environment, network_digest, values_digest
from thaw.caching.store import RunProcesses, Store
from thaw.console import progress
from thaw.data.module import DataModule
from thaw.models.network import Network
from thaw.storage import digest, digest_of_tensors
from thaw.types import Batch, BatchRequest, Indices, TokenStates

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Samples of one split whose activations are computed and stored together."""

    split: str
    indices: Indices
    """Sample indices, in the order in which activations are computed and stored."""
    view: int | None
    """Number of their augmented version; None for evaluation."""

    def __str__(self) -> str:
        return f"{len(self.indices):,} {self.split}" + ("" if self.view is None else f", view {self.view}")


class FrozenPrefix:
    """The frozen stages of `network`, computed once for each sample of `data`.

    Args:
        network: the network, whose leading stages are frozen and in evaluation mode when activations are asked for.
        data: the samples.
        store: where activations are kept.
        dtype: type in which activations are stored; None for the computed type.
        batch_size: number of samples computed at once; fixed, so that an entry has the same bits when computed again.
    """

    def __init__(self, network: Network, data: DataModule, store: Store, dtype: torch.dtype | None, batch_size: int):
        self.network, self.data, self.store = network, data, store
        self.dtype, self.batch_size = dtype, batch_size
        self._cuts: dict[int, Cut | None] = {}
        self._contents: dict[str, list[str]] = {}
        environment()
        with suppress(UndigestibleError):  # then `activations` warns
            # Read the files now: the key must describe the code that runs, even if a file is edited later.
            code_digest(type(data), type(data.source), type(network.backbone), FrozenPrefix)

    @property
    def last(self) -> int:
        """Number of the head's stage; batches that enter it are features of a wholly frozen backbone."""
        return len(self.network.stages) - 1

    def cut(self, start: int) -> Cut | None:
        """The cut in front of stage `start`, or of the nearest earlier stage that has one; None if none has.

        Registers its second half, so that the network accepts batches that enter there.
        """
        if start not in self._cuts:
            self._cuts[start] = halves = cut(self.network, self.data.input_spec, start)
            if halves is not None:
                self.network.entries[halves.start] = halves.suffix
        return self._cuts[start]

    def activations(self, split: str, view: int | None, start: int) -> Activations | None:
        """Activations that enter stage `start`, from the store; missing ones are computed and kept first.

        None if they cannot be kept. Collective: call on every rank.
        """
        indices = self._sort_indices(self.data.parts[split])
        samples = Samples(split, indices, view)
        if (targets := self._targets(samples)) is None:
            log.warning(
                "frozen stages are computed in each epoch, because the %s dataset lacks the `targets` of its batches",
                split,
            )
            return None
        try:
            key = self._key(samples, start)
        except UndigestibleError as error:
            log.warning("frozen stages are computed in each epoch, because what they depend on is unknown: %s", error)
            return None
        group = RunProcesses.of(self._trainer)
        entry = self.store.open(key)
        if not group.all(entry is not None):
            entry = self._compute_entry(samples, key, start, group)
        if entry is None:
            return None
        lengths = self.data.lengths if entry.about["tokens"] else None
        lengths = None if lengths is None else lengths[indices]
        return Activations(entry, start, indices, targets, lengths, self.data.width)

    def run(self, batch: Batch, start: int) -> Batch:
        """Replace the raw inputs of a batch by the activations that enter stage `start`, on the trainer's device."""
        frozen = set(list(self.network.stages)[:start])
        assert not any(m.training for m, stages in self.network.modules_with_stages() if stages <= frozen)
        prefix = self.network.features if start == self.last else self.cut(start).prefix  # type: ignore[union-attr]
        batch = self._trainer.strategy.batch_to_device(self._trainer.precision_plugin.convert_input(batch))
        with torch.no_grad(), self._trainer.precision_plugin.forward_context():
            return batch._replace(inputs=prefix(batch.inputs), start=start)

    def _targets(self, samples: Samples) -> Tensor | None:
        """Targets of all samples as the dataset gives them; None if its `targets` are absent or not those of a batch.

        One sample is read for it.
        """
        dataset = self.data.dataset(samples.split)
        targets = getattr(dataset, "targets", None)
        if not isinstance(targets, Tensor):
            return None
        given = dataset[BatchRequest(samples.indices[:1].tolist(), samples.view)].target
        known = targets[torch.from_numpy(samples.indices[:1])]
        return targets if known.dtype == given.dtype and torch.equal(known, given) else None

    def _compute_entry(self, samples: Samples, key: str, start: int, group: RunProcesses) -> CacheEntry | None:
        """Compute the activations of all samples and store them; None if they cannot be stored. Collective."""
        outputs = self._compute_outputs(samples, start, group)
        first_position, first = next(outputs)
        states = first.states if isinstance(first, TokenStates) else first
        dtype, channels_last = self.dtype or states.dtype, is_channels_last(first)
        if isinstance(first, TokenStates):
            assert self.data.lengths is not None
            first_rows = np.concatenate([[0], np.cumsum(self.data.lengths[samples.indices])])
        else:
            first_rows = np.arange(len(samples.indices) + 1)

        def fill(write: Writer) -> None:
            for position, output in chain([(first_position, first)], outputs):
                write(ARRAY, int(first_rows[position]), to_rows(output, dtype, channels_last))

        about = {
            "what": f"output of {list(self.network.stages)[start - 1]}",
            "samples": str(samples),
            "run": str(self._trainer.default_root_dir),
            "computed": str(states.dtype).removeprefix("torch."),
            "channels_last": channels_last,
            "tokens": isinstance(first, TokenStates),
        }
        layout = Layout(dtype, (int(first_rows[-1]), *to_rows(first, dtype, channels_last).shape[1:]))
        return self.store.get_or_write(key, about, {ARRAY: layout}, fill, group)

    def _compute_outputs(self, samples: Samples, start: int, group: RunProcesses) -> Iterator[tuple[int, Any]]:
        """Yield (position of the first sample, activations) for each batch of this rank's share, at least one."""
        positions = range(0, len(samples.indices), self.batch_size)
        share = positions[group.rank :: group.world_size] or positions[:1]
        requests = [BatchRequest(samples.indices[i : i + self.batch_size].tolist(), samples.view) for i in share]
        then = partial(self.run, start=start) if self._runs_in_workers(start) else None
        batches = self.data.raw_loader(samples.split, requests, then=then)
        names = list(self.network.stages)
        what = f"{names[0]} ... {names[start - 1]} of {samples} samples"
        for position, batch in zip(share, progress(batches, len(share), what), strict=True):
            with torch.inference_mode():
                output = (batch if batch.start == start else self.run(batch, start)).inputs
            yield position, output

    def _runs_in_workers(self, start: int) -> bool:
        """Whether loader processes run the frozen stages, too.

        On CPUs, one process per batch is faster than threads that share a kernel: 0.6 s for 500 images, not 0.8 s.
        Without fork every process would need a copy of the network; feature maps may be too large for shared memory.
        """
        on_cpu = self._trainer.strategy.root_device.type == "cpu"
        can_fork = not self.network.is_whole  # what is compiled starts processes of its own
        return can_fork and start == self.last and on_cpu and self.data.num_workers > 0 and get_start_method() == "fork"

    def _sort_indices(self, indices: Indices) -> Indices:
        """Sort sample indices, so that the order they were drawn in does not matter; texts are sorted by length."""
        indices = np.sort(indices)
        return indices if self.data.lengths is None else indices[np.argsort(self.data.lengths[indices], kind="stable")]

    def _key(self, samples: Samples, start: int) -> str:
        """Digest of all that the activations depend on. Raises UndigestibleError if something cannot be digested."""
        trainer = self._trainer
        if samples.split not in self._contents:  # the same for all views and stages
            self._contents[samples.split] = self.data.contents(samples.indices)
        settings = [trainer.strategy.root_device.type, str(trainer.precision), str(self.dtype), self.batch_size]
        code = code_digest(type(self.data), type(self.data.source), FrozenPrefix)
        parts = [environment(), code, *self._contents[samples.split]]
        if samples.view is not None:  # what a view shows depends on the index of the sample
            parts += map(str, samples.indices.tolist())
        parts += [values_digest([self.data.recipe(samples.view), settings]), network_digest(self.network.backbone)]
        if start == self.last and self.network.pool is not None:
            parts.append(network_digest(self.network.pool))
        tensors = self.network.stage_tensors()
        parts += [digest_of_tensors(tensors[stage]) for stage in list(self.network.stages)[:start]]
        return f"frozen-{digest(*parts)}"

    @property
    def _trainer(self) -> Trainer:
        assert self.data.trainer is not None, "only a trainer asks for batches"
        return self.data.trainer
