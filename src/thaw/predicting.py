"""Class probabilities of image files, as they come from a network, and the tables that they are written to."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from thaw.backbones.backbone import ImageSpec
from thaw.console import progress
from thaw.data.image_file import load_image
from thaw.data.image_folder import images_below
from thaw.data.images import default_workers
from thaw.data.table import DELIMITERS, read_table
from thaw.data.transforms import evaluation_transform, normalise
from thaw.task import SingleLabel


class Prediction(NamedTuple):
    file: Path
    probabilities: list[float] | None
    """One a class; None where the file could not be loaded."""
    fault: str | None
    """Why not."""


class Output(NamedTuple):
    csv: Path
    jsonl: Path


def input_files(source: str, path_column: str, notes: list[str]) -> list[Path]:
    """The images that `source` means, in a fixed order; to `notes` goes what else lies there.

    Raises ValueError where there is none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if found := sorted(images_below(path, notes)):
            return found
        raise ValueError(f"input={source}: no image in that folder or below it")
    if path.is_file():
        if path.suffix.lower() in (*DELIMITERS, ".jsonl"):
            return [path.parent / row.values[path_column] for row in read_table(path, {"path_column": path_column})]
        return [path]
    if has_magic(source):
        if found := sorted(Path(name) for name in glob(str(path), recursive=True) if not os.path.isdir(name)):
            return found
        raise ValueError(f"input={source} matches no file")
    raise ValueError(f"input={source} does not exist: name an image, a folder, a glob or a table")


def output_files(output: str | None, run: Path, source: str) -> Output:
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(source).stem) or "input"
    stem = str(run / f"predictions_{name}") if output is None else output.removesuffix(".csv").removesuffix(".jsonl")
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    return Output(Path(f"{stem}.csv"), Path(f"{stem}.jsonl"))


def predictions(
    files: Sequence[Path],
    network: nn.Module,
    spec: ImageSpec,
    task: SingleLabel,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str = "auto",
) -> Iterator[Prediction]:
    """One for each file, in their order."""
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    place = _device(device)
    workers = default_workers() if num_workers is None else num_workers
    batches = [list(range(i, min(i + batch_size, len(files)))) for i in range(0, len(files), batch_size)]
    loader = DataLoader(
        _Files(files, spec),
        sampler=batches,  # whole batches of indices
        batch_size=None,
        collate_fn=_as_is,
        num_workers=min(workers, len(batches)) if len(batches) > 1 else 0,  # one batch does not pay a process
    )
    network = network.to(place).eval()
    for indices, (images, faults) in zip(batches, loader, strict=True):
        rows = iter(())
        if images is not None:
            with torch.inference_mode():
                rows = iter(task.probabilities(network(normalise(images.to(place), spec))).cpu().tolist())
        for index, fault in zip(indices, faults, strict=True):
            yield Prediction(files[index], next(rows) if fault is None else None, fault)


def write(found: Iterable[Prediction], total: int, class_names: Sequence[str], top_k: int, output: Output) -> list[str]:
    """A row an image: path, label, confidence, the `top_k` likeliest, every class's probability.

    Gives a line for each file that was skipped. The output appears when it is whole. Raises ValueError where no image
    could be read.
    """
    if top_k < 1:
        raise ValueError(f"top_k is at least 1, not {top_k}")
    skipped = []
    partial = [file.with_name(f"{file.name}.partial") for file in output]
    with ExitStack() as stack:
        table, lines = (stack.enter_context(file.open("w", newline="", encoding="utf-8")) for file in partial)
        rows = csv.writer(table)
        rows.writerow(["path", "label", "confidence", "top", *(f"p({name})" for name in class_names)])
        for file, probabilities, fault in progress(found, total, "predicting"):
            if probabilities is None:
                skipped.append(f"{file}: {fault}")
                continue
            ranked = sorted(range(len(class_names)), key=lambda k: -probabilities[k])
            top = [(class_names[k], probabilities[k]) for k in ranked[:top_k]]
            label, confidence = top[0]
            shown = "; ".join(f"{name} {probability:.4f}" for name, probability in top)
            rows.writerow([file, label, confidence, shown, *probabilities])
            record = {"path": str(file), "label": label, "confidence": confidence}
            each = dict(zip(class_names, probabilities, strict=True))
            lines.write(json.dumps({**record, "top": top, "probabilities": each}, ensure_ascii=False) + "\n")
    if len(skipped) == total:
        for file in partial:
            file.unlink()
        raise ValueError("none of the files could be read:\n" + "\n".join(f"  {line}" for line in skipped))
    for file, whole in zip(partial, output, strict=True):
        os.replace(file, whole)
    return skipped


class _Files(Dataset[Any]):
    """Batches of uint8 images (B, C, H, W), without the files that cannot be loaded; and what is wrong with each."""

    def __init__(self, files: Sequence[Path], spec: ImageSpec):
        self.files, self.transform = files, evaluation_transform(spec)

    def __getitem__(self, indices: list[int]) -> tuple[Tensor | None, list[str | None]]:
        images: list[Tensor] = []
        faults: list[str | None] = []
        for index in indices:
            try:
                images.append(self.transform(load_image(self.files[index])))
                faults.append(None)
            except ValueError as error:
                faults.append(str(error))
        return torch.stack(images) if images else None, faults


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"device={name} cannot be used here ({reason}): device=auto") from error
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None else found


def _as_is(batch: Any) -> Any:
    return batch
