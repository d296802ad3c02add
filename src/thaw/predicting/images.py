"""Image files to classify."""

import os
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

import torch
from torch import Tensor

from thaw.data.image_file import load_image
from thaw.data.image_folder import images_below
from thaw.data.image_table import confined, root_of
from thaw.data.loader import default_workers
from thaw.data.table import read_table, table_suffix, wrong_rows
from thaw.data.transforms import evaluation_transform, normalise
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.predicting.lines import LINE, STANDARD_INPUT, holds_lines, read_lines
from thaw.types import ImageSpec

MAX_LISTED = 20  # unused files


class ImagePredictionDataset(PredictionDataset):
    """Image files, loaded as batches of uint8 images (B, C, H, W). `unused` names other files, for a note."""

    columns = ("path",)
    default_workers = default_workers()

    def __init__(self, files: Sequence[Path], spec: ImageSpec, unused: Sequence[str] = ()):
        super().__init__([str(file) for file in files])
        self.spec, self.transform, self.unused = spec, evaluation_transform(spec), unused

    def __getitem__(self, indices: list[int]) -> tuple[Tensor | None, list[str | None]]:
        images: list[Tensor] = []
        faults: list[str | None] = []
        for index in indices:
            try:
                images.append(self.transform(load_image(self.names[index], self.spec.max_value)))
                faults.append(None)
            except ValueError as error:
                faults.append(str(error))
        return torch.stack(images) if images else None, faults

    def to_network(self, inputs: Tensor, device: torch.device) -> Tensor:
        """Normalise uint8 images to float32 on the device."""
        return normalise(inputs.to(device), self.spec)

    def notes(self) -> list[str]:
        """Which files of the input were not used."""
        listed = [f"  {name}" for name in self.unused[:MAX_LISTED]]
        return [f"{len(self.unused)} others were not used:", *listed] if self.unused else []


def read_images(
    source: str, column: str, encoding: str, quotes: bool, spec: ImageSpec, root: str | None = None
) -> ImagePredictionDataset:
    """Find the images that `source` names.

    It is a file, a folder, a glob, a table with a column of paths, or has a path on each line: a .txt file, or standard
    input (`-`). Paths in a file are relative to its folder; those in a table to `root`, which they must not leave.

    Raises:
        UserError: if there is none, or if rows of the table are wrong.
    """
    path = os.path.expanduser(source)
    unused: list[str] = []
    if os.path.isdir(path):
        files = sorted(images_below(Path(path), unused))
        if not files:
            raise UserError(f"input={source}: no image in that folder or below it")
    elif holds_lines(source) and (source == STANDARD_INPUT or os.path.isfile(path)):
        lines = [row[LINE] for row in read_lines(path, encoding)]
        files = [Path(path).parent / line for line in lines if line.strip()]
        if not files:
            raise UserError(f"input={source} holds no path of an image")
    elif os.path.isfile(path):
        file = Path(path)
        files = [file] if table_suffix(file) is None else _paths_of_table(file, column, encoding, quotes, root)
    elif has_magic(source):
        files = sorted(file for file in map(Path, glob(path, recursive=True)) if not file.is_dir())
        if not files:
            raise UserError(f"input={source} matches no file")
    else:
        raise UserError(
            f"input={source} does not exist: name an image, a folder, a glob, a table, or a .txt file or - (standard "
            "input) with a path on each line"
        )
    return ImagePredictionDataset(files, spec, unused)


def _paths_of_table(table: Path, column: str, encoding: str, quotes: bool, root: str | None) -> list[Path]:
    rows = read_table(table, {"column": column}, encoding, quotes)
    if faults := [f"{row.place}{row.fault}" for row in rows if row.fault is not None]:
        raise UserError(wrong_rows(table, faults, len(rows)))
    folder, files = root_of(table, root), list[Path]()
    for row in rows:
        try:
            files.append(confined(row[column], folder, column, "root=<folder>"))
        except UserError as fault:
            faults.append(f"{row.place}{fault}")
    if faults:
        raise UserError(wrong_rows(table, faults, len(rows)))
    return files
