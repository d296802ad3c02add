"""Image files to classify."""

import os
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

import torch
from torch import Tensor

from thaw.data.image_file import load_image
from thaw.data.image_folder import images_below
from thaw.data.image_module import default_workers
from thaw.data.table import read_table, table_suffix, wrong_rows
from thaw.data.transforms import evaluation_transform, normalise
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.types import ImageSpec


class ImagePredictionDataset(PredictionDataset):
    """Files become batches of uint8 images (B, C, H, W)."""

    column = "path"
    numbered = False
    workers = default_workers()

    def __init__(self, files: Sequence[Path], spec: ImageSpec):
        super().__init__([str(file) for file in files])
        self.spec, self.transform = spec, evaluation_transform(spec)

    def __getitem__(self, indices: list[int]) -> tuple[Tensor | None, list[str | None]]:
        images: list[Tensor] = []
        faults: list[str | None] = []
        for index in indices:
            try:
                images.append(self.transform(load_image(self.names[index])))
                faults.append(None)
            except ValueError as error:
                faults.append(str(error))
        return torch.stack(images) if images else None, faults

    def on_device(self, inputs: Tensor, device: torch.device) -> Tensor:
        return normalise(inputs.to(device), self.spec)


def input_files(source: str, path_column: str, encoding: str, quotes: bool, notes: list[str]) -> list[Path]:
    """The images that `source` means, in a fixed order; to `notes` goes what else lies there.

    Raises UserError where there is none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if found := sorted(images_below(path, notes)):
            return found
        raise UserError(f"input={source}: no image in that folder or below it")
    if path.is_file():
        if table_suffix(path) is None:
            return [path]
        rows = read_table(path, {"column": path_column}, encoding, quotes)
        if faults := [f"{row.place}{row.fault}" for row in rows if row.fault is not None]:
            raise UserError(wrong_rows(path, faults, len(rows)))
        return [path.parent / row[path_column] for row in rows]
    if has_magic(source):
        if found := sorted(Path(name) for name in glob(str(path), recursive=True) if not os.path.isdir(name)):
            return found
        raise UserError(f"input={source} matches no file")
    raise UserError(f"input={source} does not exist: name an image, a folder, a glob or a table")
