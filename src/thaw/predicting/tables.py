"""Class probabilities, as they come from a network, and the tables that they are written to."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from thaw.console import progress
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.tasks.single_label import SingleLabel


class Prediction(NamedTuple):
    sample: int
    """Its number."""
    probabilities: list[float] | None
    """One a class; None where the sample cannot be used."""
    fault: str | None
    """Why not."""


class Output(NamedTuple):
    csv: Path
    jsonl: Path


def output_files(output: str | None, run: Path, source: str) -> Output:
    """Raises UserError where one of them is `source`."""
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(source).stem) or "input"
    name = name.encode()[:60].decode(errors="ignore")  # file systems count bytes
    stem = str(run / f"predictions_{name}") if output is None else output.removesuffix(".csv").removesuffix(".jsonl")
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    files = Output(Path(f"{stem}.csv"), Path(f"{stem}.jsonl"))
    if any(os.path.exists(source) and file.exists() and file.samefile(source) for file in files):
        raise UserError(f"output={output} would take the place of {source}: name another output")
    return files


def predictions(
    asked: PredictionDataset,
    network: nn.Module,
    task: SingleLabel,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str = "auto",
) -> Iterator[Prediction]:
    """One for each sample, in their order."""
    if batch_size < 1:
        raise UserError(f"batch_size is at least 1, not {batch_size}")
    place = _device(device)
    workers = asked.workers if num_workers is None else num_workers
    batches = asked.batches(batch_size)
    loader = DataLoader(
        asked,
        sampler=batches,  # whole batches of indices
        batch_size=None,
        collate_fn=_as_is,
        num_workers=min(workers, len(batches)) if len(batches) > 1 else 0,  # one batch does not pay a process
    )
    network = network.to(place).eval()
    waiting: dict[int, Prediction] = {}  # where the batches are not in the samples' order
    due = 0
    for indices, (inputs, faults) in zip(batches, loader, strict=True):
        rows = iter(())
        if inputs is not None:
            with torch.inference_mode():
                rows = iter(task.probabilities(network(asked.on_device(inputs, place))).cpu().tolist())
        for index, fault in zip(indices, faults, strict=True):
            waiting[index] = Prediction(index, next(rows) if fault is None else None, fault)
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def write(
    found: Iterable[Prediction], asked: PredictionDataset, class_names: Sequence[str], top_k: int, output: Output
) -> list[str]:
    """A row a sample: what it is, label, confidence, the `top_k` likeliest, every class's probability.

    Gives a line for each one that was skipped. The output appears when it is whole. Raises UserError where none can be
    used.
    """
    if top_k < 1:
        raise UserError(f"top_k is at least 1, not {top_k}")
    skipped = []
    partial = [file.with_name(f"{file.name}.partial") for file in output]
    with ExitStack() as stack:
        table, lines = (stack.enter_context(file.open("w", newline="", encoding="utf-8")) for file in partial)
        rows = csv.writer(table)
        rows.writerow(
            [
                *(["row"] if asked.numbered else []),
                asked.column,
                "label",
                "confidence",
                "top",
                *(f"p({name})" for name in class_names),
            ]
        )
        for index, probabilities, fault in progress(found, len(asked), "predicting"):
            name = asked.names[index]
            if probabilities is None:
                skipped.append(f"{asked.place(index)}: {fault}")
                continue
            ranked = sorted(range(len(class_names)), key=lambda k: -probabilities[k])
            top = [(class_names[k], probabilities[k]) for k in ranked[:top_k]]
            label, confidence = top[0]
            shown = "; ".join(f"{each} {probability:.4f}" for each, probability in top)
            number = {"row": index + 1} if asked.numbered else {}
            rows.writerow([*number.values(), name, label, confidence, shown, *probabilities])
            record = {**number, asked.column: name, "label": label, "confidence": confidence}
            each = dict(zip(class_names, probabilities, strict=True))
            lines.write(json.dumps({**record, "top": top, "probabilities": each}, ensure_ascii=False) + "\n")
    if len(skipped) == len(asked):
        for file in partial:
            file.unlink()
        raise UserError(f"none of the {len(asked)} can be used:\n" + "\n".join(f"  {line}" for line in skipped))
    for file, whole in zip(partial, output, strict=True):
        os.replace(file, whole)
    return skipped


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"device={name} cannot be used here ({reason}): device=auto") from error
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None else found


def _as_is(batch: Any) -> Any:
    return batch
