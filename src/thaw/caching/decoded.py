"""Images that were decoded once and are kept in the form in which transforms begin, in one file a split.

Evaluation is bit for bit what it is without. So are views of training samples whose shorter side is at most twice what
evaluation resizes to: they are kept as they are. Larger ones are shrunk before random crops are taken, whether or not
they could be kept; in evaluation they are read as ever.

N images; the pixels of each are (height, width, channels), one image after the other.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from thaw.caching.file import DamagedFileError, Layout, Writer, opened
from thaw.caching.keys import digest_of_values, environment
from thaw.caching.store import ProcessGroup, Store
from thaw.console import progress
from thaw.data.image_file import quiet_pillow
from thaw.data.transforms import ResizeTransform
from thaw.storage import digest
from thaw.types import Indices

T = TypeVar("T")

log = logging.getLogger(__name__)

PIXELS, STARTS, SIZES, WHOLE = "pixels", "starts", "sizes", "whole"
"""uint8, of all images; int64 (N + 1), where each begins; int32 (N, 2), width and height; uint8 (N), see `Decoded`."""
AT_ONCE = 64
"""So many images are in memory while they are decoded."""

Read = Callable[[int], Image.Image]


@runtime_checkable
class ReadsFiles(Protocol):
    """Reads images in any thread, and knows how large they are without decoding them."""

    def in_thread(self, index: int) -> Image.Image:
        """Inside `quiet_pillow`, which is not for threads."""

    def stored_size(self, index: int) -> tuple[int, int]:
        """Width and height, or the other way round."""


class Decoded:
    """Images by their number: those of `samples` from the file at `path`, the others, and where it is gone, by `read`.

    Evaluation is given only what is marked as whole: what comes to the same as the image itself. The rest is for views.
    """

    def __init__(self, read: Read, form: ResizeTransform, samples: Indices, path: Path):
        self.read, self.mode, self.path = read, "L" if form.channels == 1 else "RGB", path
        self.row = np.full(samples.max(initial=-1) + 1, -1)
        self.row[samples] = np.arange(len(samples))
        self._open()

    def __call__(self, index: int, evaluation: bool) -> Image.Image:
        row = self.row[index] if index < len(self.row) else -1
        if not self.arrays or row < 0 or (evaluation and not self.arrays[WHOLE][row]):
            return self.read(index)
        begin, end = self.arrays[STARTS][row : row + 2]
        width, height = self.arrays[SIZES][row].tolist()
        return Image.frombytes(self.mode, (width, height), self.arrays[PIXELS][begin:end].data)

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def __getstate__(self) -> dict[str, Any]:
        """A process that is spawned opens the file itself."""
        return {**vars(self), "arrays": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        try:
            kept = opened(self.path, check=False)  # it was checked when it was found or made
        except (OSError, DamagedFileError):  # deleted meanwhile
            return
        self.arrays = {name: array.numpy() for name, array in kept.arrays.items()}


@dataclass(frozen=True)
class Decoder:
    """Decodes images and keeps them in a form."""

    read: Read
    form: ResizeTransform
    samples: Indices
    contents: Sequence[str]
    """Digests of what each of the samples is."""
    what: str
    """They are, for people."""
    run: str
    """Who decodes them, for people."""
    num_threads: int

    def kept(self, store: Store, together: ProcessGroup, taken_bytes: int) -> Decoded | None:
        """In the store; they are put there where they are not yet. None, with a warning, where they cannot be.

        `taken_bytes`: what other splits take of the store's budget.
        """
        key = f"decoded-{digest(environment(), digest_of_values(asdict(self.form)), *self.contents)}"
        there = store.open(key) is not None
        if not together.all(there) and not self._make(key, store, together, taken_bytes):
            return None
        return Decoded(self.read, self.form, self.samples, store.path(key))

    def _make(self, key: str, store: Store, together: ProcessGroup, taken_bytes: int) -> bool:
        with quiet_pillow(), ThreadPoolExecutor(self.num_threads) as threads:
            starts = self._starts(threads)
            if starts[-1] > store.budget_bytes - taken_bytes:
                if together.rank == 0:
                    log.warning(
                        "decoded, the %s take %.3g GB beside %.3g GB of other splits, more than "
                        "caching.budget_gb=%.3g: they are decoded in each epoch",
                        *(self.what, starts[-1] / 1e9, taken_bytes / 1e9, store.budget_bytes / 1e9),
                    )
                return False
            layouts = {
                PIXELS: Layout(torch.uint8, (int(starts[-1]),)),
                STARTS: Layout(torch.int64, (len(starts),)),
                SIZES: Layout(torch.int32, (len(self.samples), 2)),
                WHOLE: Layout(torch.uint8, (len(self.samples),)),
            }
            fill = partial(self._fill, threads, starts, together)
            about = {"what": "decoded images", "samples": self.what, "run": self.run}
            return store.get(key, about, layouts, fill, together) is not None

    def _starts(self, threads: ThreadPoolExecutor) -> NDArray[np.int64]:
        """(N + 1,): where the pixels of each image will begin; turning an image does not change their number."""
        if isinstance(self.read, ReadsFiles):
            found = _in_order(threads, self.read.stored_size, self.samples)
        else:
            found = (self.read(index).size for index in self.samples.tolist())
        sizes = [self.form.size(*size) for size in progress(found, len(self.samples), f"sizes of {self.what}")]
        return np.cumsum([0, *(width * height * self.form.channels for width, height in sizes)])

    def _fill(
        self, threads: ThreadPoolExecutor, starts: NDArray[np.int64], together: ProcessGroup, write: Writer
    ) -> None:
        """The share of this rank."""
        rows = np.array_split(np.arange(len(self.samples)), together.world_size)[together.rank].tolist()
        images = progress(self._formed(threads, self.samples[rows]), len(rows), f"decoding {self.what}")
        for row, (image, whole) in zip(rows, images, strict=True):
            pixels = torch.from_numpy(np.array(image)).flatten()
            if len(pixels) != starts[row + 1] - starts[row]:
                raise OSError(f"sample {self.samples[row]} has another size than before")
            write(PIXELS, int(starts[row]), pixels)
            write(SIZES, row, torch.tensor([image.size], dtype=torch.int32))
            write(WHOLE, row, torch.tensor([whole], dtype=torch.uint8))
        if together.rank == 0:
            write(STARTS, 0, torch.from_numpy(starts))

    def _formed(self, threads: ThreadPoolExecutor, samples: Indices) -> Iterator[tuple[Image.Image, bool]]:
        if isinstance(self.read, ReadsFiles):
            read = self.read.in_thread
            return _in_order(threads, lambda index: self._in_form(read(index)), samples)
        return (self._in_form(self.read(index)) for index in samples.tolist())

    def _in_form(self, image: Image.Image) -> tuple[Image.Image, bool]:
        """And whether it counts as whole."""
        formed = self.form(image)
        return formed, not self.form.only_shrinks or formed.size == image.size


def _in_order(threads: ThreadPoolExecutor, do: Callable[[int], T], samples: Indices) -> Iterator[T]:
    for first in range(0, len(samples), AT_ONCE):
        yield from threads.map(do, samples[first : first + AT_ONCE].tolist())
