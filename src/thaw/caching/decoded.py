"""Cache of decoded images: decoded once, resized by the first step of their transform, stored as one entry per split.

Evaluation is the same to the last bit with and without this cache. So are augmented views: a training image is stored
in its own size if its shorter side is at most twice the size for evaluation. A larger one is shrunk before random crops
are taken, whether it is cached or not; for evaluation it is read from its file.

N: number of images in an entry. The pixels of each are (height, width, channels), one image after the other.
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

from thaw.caching.entry import CacheEntry, DamagedEntryError, Layout, Writer
from thaw.caching.keys import UndigestibleError, code_digest, environment, values_digest
from thaw.caching.store import RunProcesses, Store
from thaw.console import progress
from thaw.data.image_file import load_image, quiet_pillow
from thaw.data.image_module import ImageDataModule
from thaw.data.loader import default_workers
from thaw.data.source import Source, read_images
from thaw.data.transforms import ResizeTransform, evaluation_resize, training_resize
from thaw.storage import digest
from thaw.types import Indices

T = TypeVar("T")

log = logging.getLogger(__name__)

PIXELS = "pixels"
"""uint8: pixels of all images, flat."""
STARTS = "starts"
"""int64 (N + 1): where the pixels of each image begin, and where the last ones end."""
SIZES = "sizes"
"""int32 (N, 2): width and height."""
EXACT = "exact"
"""uint8 (N): 1 if evaluation may use the image, 0 if it was shrunk for random crops only."""
IMAGES_AT_ONCE = 64
"""How many images are in memory while they are decoded."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A source that works in threads and knows the size of an image without decoding it."""

    reads_plainly: bool
    """Whether its samples are what `in_thread` reads."""

    def in_thread(self, index: int) -> Image.Image:
        """Read an image, RGB. The caller has entered `quiet_pillow`, which must not be entered in threads."""

    def stored_size(self, index: int) -> tuple[int, int]:
        """Width and height, or height and width, in pixels."""


class DecodedImages:
    """Yields images by sample index: from a cache entry if it has them, else from the source.

    A pickled copy holds the path of the entry and no pixels. If the entry is deleted meanwhile, the source is read.
    """

    def __init__(self, source: Source, resize: ResizeTransform, samples: Indices, path: Path):
        self.source, self.mode, self.path = source, "L" if resize.channels == 1 else "RGB", path
        self.row_of = np.full(samples.max(initial=-1) + 1, -1)
        self.row_of[samples] = np.arange(len(samples))
        self._open()

    def __call__(self, indices: Sequence[int], evaluation: bool) -> Iterator[Image.Image]:
        """Yield these images; with `evaluation`, never one that was shrunk for random crops."""
        return (self._image(index, evaluation) for index in indices)

    def _image(self, index: int, evaluation: bool) -> Image.Image:
        row = self.row_of[index] if index < len(self.row_of) else -1
        if not self.arrays or row < 0 or (evaluation and not self.arrays[EXACT][row]):
            return next(read_images(self.source, [index]))
        begin, end = self.arrays[STARTS][row : row + 2]
        width, height = self.arrays[SIZES][row].tolist()
        return Image.frombytes(self.mode, (width, height), self.arrays[PIXELS][begin:end].data)

    @property
    def num_bytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "arrays": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        try:
            entry = CacheEntry.open(self.path, verify=False)  # the store has verified it
        except (OSError, DamagedEntryError):  # deleted meanwhile
            return
        self.arrays = {name: array.numpy() for name, array in entry.arrays.items()}


def decode_split(data: ImageDataModule, split: str, store: Store) -> None:
    """Make `data` read the images of a split as decoded copies, if these fit into the budget.

    Collective: call on every rank.
    """
    if split in data.decoded:
        return
    resize = training_resize if split == "train" and data.augments else evaluation_resize
    samples = np.sort(data.parts[split])
    what, run = f"{len(samples):,} {split} images", str(data.trainer.default_root_dir if data.trainer else "")
    contents = data.contents(samples)
    decoder = ImageDecoder(data.source, resize(data.input_spec), samples, contents, what, run, default_workers())
    taken_bytes = sum(images.num_bytes for images in data.decoded.values() if isinstance(images, DecodedImages))
    data.decoded[split] = decoder.decode(store, RunProcesses.of(data.trainer), taken_bytes)


@dataclass(frozen=True)
class ImageDecoder:
    """Decodes and resizes images, and caches the result."""

    source: Source
    resize: ResizeTransform
    samples: Indices
    """Sample indices (N,), ascending."""
    contents: Sequence[str]
    """Digest of the content of each sample."""
    what: str
    """Description of the samples for people, such as "120 val images"."""
    run: str
    """Folder of the run that decodes them, for the listing of the cache."""
    num_threads: int

    def decode(self, store: Store, group: RunProcesses, taken_bytes: int) -> DecodedImages | None:
        """The images, decoded and stored if they are not there yet. Collective: call on every rank.

        Returns None with a warning if they do not fit into the budget beside `taken_bytes` of other splits, if the disk
        cannot be written, or if the code of the source has no digest.
        """
        try:
            code = code_digest(ResizeTransform, load_image, read_images, type(self.source))
        except UndigestibleError as error:
            log.warning("decoded images are not kept, because %s", error)
            return None
        key = f"decoded-{digest(environment(), code, values_digest(asdict(self.resize)), *self.contents)}"
        is_stored = store.open(key) is not None
        if not group.all(is_stored) and not self._store(key, store, group, taken_bytes):
            return None
        return DecodedImages(self.source, self.resize, self.samples, store.path(key))

    def _store(self, key: str, store: Store, group: RunProcesses, taken_bytes: int) -> bool:
        with quiet_pillow(), ThreadPoolExecutor(self.num_threads) as threads:
            starts = self._starts(threads)
            num_bytes = int(starts[-1])
            if num_bytes > store.budget_bytes - taken_bytes:
                if group.rank == 0:
                    log.warning(
                        "decoded, the %s take %.3g GB beside %.3g GB of other splits, more than "
                        "caching.budget_gb=%.3g: they are decoded in each epoch",
                        *(self.what, num_bytes / 1e9, taken_bytes / 1e9, store.budget_bytes / 1e9),
                    )
                return False
            layouts = {
                PIXELS: Layout(torch.uint8, (num_bytes,)),
                STARTS: Layout(torch.int64, (len(starts),)),
                SIZES: Layout(torch.int32, (len(self.samples), 2)),
                EXACT: Layout(torch.uint8, (len(self.samples),)),
            }
            fill = partial(self._fill, threads, starts, group)
            about = {"what": "decoded images", "samples": self.what, "run": self.run}
            return store.get_or_write(key, about, layouts, fill, group) is not None

    @property
    def _files(self) -> ReadsFiles | None:
        """The source, if threads can read its samples."""
        return self.source if isinstance(self.source, ReadsFiles) and self.source.reads_plainly else None

    def _starts(self, threads: ThreadPoolExecutor) -> NDArray[np.int64]:
        """Where the pixels of each image will begin (N + 1,). Rotation by EXIF does not change their number."""
        if (files := self._files) is not None:
            stored_sizes = _map_in_order(threads, files.stored_size, self.samples)
        else:
            stored_sizes = (image.size for image in read_images(self.source, self.samples.tolist()))
        sizes = [self.resize.size(*size) for size in progress(stored_sizes, len(self.samples), f"sizes of {self.what}")]
        return np.cumsum([0, *(width * height * self.resize.channels for width, height in sizes)])

    def _fill(self, threads: ThreadPoolExecutor, starts: NDArray[np.int64], group: RunProcesses, write: Writer) -> None:
        """Write this rank's share of the images."""
        rows = np.array_split(np.arange(len(self.samples)), group.world_size)[group.rank].tolist()
        images = progress(self._iterate_resized(threads, self.samples[rows]), len(rows), f"decoding {self.what}")
        for row, (image, exact) in zip(rows, images, strict=True):
            pixels = torch.from_numpy(np.array(image)).flatten()
            if len(pixels) != starts[row + 1] - starts[row]:
                raise OSError(f"the image of sample {self.samples[row]} has changed its size")
            write(PIXELS, int(starts[row]), pixels)
            write(SIZES, row, torch.tensor([image.size], dtype=torch.int32))
            write(EXACT, row, torch.tensor([exact], dtype=torch.uint8))
        if group.rank == 0:
            write(STARTS, 0, torch.from_numpy(starts))

    def _iterate_resized(self, threads: ThreadPoolExecutor, samples: Indices) -> Iterator[tuple[Image.Image, bool]]:
        """Each image as it is stored, and whether evaluation may use it."""

        def resized(image: Image.Image) -> tuple[Image.Image, bool]:
            smaller = self.resize(image)
            return smaller, not self.resize.only_shrinks or smaller.size == image.size

        if (files := self._files) is not None:
            read = files.in_thread
            return _map_in_order(threads, lambda index: resized(read(index)), samples)
        return map(resized, read_images(self.source, samples.tolist()))


def _map_in_order(threads: ThreadPoolExecutor, function: Callable[[int], T], samples: Indices) -> Iterator[T]:
    """Yield the result of `function` for each sample, in order, with at most `IMAGES_AT_ONCE` in memory."""
    for first in range(0, len(samples), IMAGES_AT_ONCE):
        yield from threads.map(function, samples[first : first + IMAGES_AT_ONCE].tolist())
