"""The data module of images, and the dataset that makes batches of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from thaw.data.loader import default_workers
from thaw.data.module import DataModule
from thaw.data.source import Source, read_images
from thaw.data.transforms import Transform, evaluation_transform, normalise, training_transform
from thaw.errors import UserError
from thaw.seeds import seed_of
from thaw.types import Batch, BatchRequest, InputSpec

DECODED = {"off": False, "false": False, "on": True, "true": True}
"""Meaning of the values of data.decoded, in lower case."""

KEPT_BYTES = 256 * 2**20
"""Images as in evaluation stay in memory after their first use if all of them take no more, and no processes load."""
PHOTOGRAPHS_TRIED = 9
GREY_SPREAD = 4.0
"""Mean difference between the colours of a pixel, of 255, that a grey image saved as JPEG may have."""
LARGEST_GLYPH_PX = 64
"""Shorter side of the largest image that is taken for a letter or digit."""
ReadDecoded = Callable[[Sequence[int], bool], Iterator[Image.Image]]
"""Function from sample indices, and whether they are for evaluation, to the images or smaller copies that will do."""


class ImageDataModule(DataModule):
    """The images of a source. Their transforms follow from the network's input spec.

    Args:
        source: the images; it is sent to loader processes.
        augment: none, light or strong.
        views: number of versions of each training image that come round while leading stages are frozen, so that what
            these compute can be kept: version 0 is the image as in evaluation, the others are augmented.
        flip_probability: probability of a horizontal flip, where images are augmented.
        decoded: "on" if images are decoded once and cached; see thaw.caching.decoded.
        num_workers: loader processes; None for one per core, at most 8.
        **choices: see `DataModule`.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        source: Source,
        *,
        augment: str = "none",
        views: int = 4,
        flip_probability: float = 0.5,
        decoded: str | bool = "off",
        num_workers: int | None,
        **choices: Any,
    ):
        if (keeps_decoded := DECODED.get(str(decoded).lower())) is None:
            raise UserError(f"data.decoded is off or on, not '{decoded}'")
        super().__init__(source, num_workers=default_workers() if num_workers is None else num_workers, **choices)
        self.augment, self.views, self.flip_probability = augment, views, flip_probability
        self.keeps_decoded = keeps_decoded
        self.decoded: dict[str, ReadDecoded | None] = {}
        """By split, readers of decoded copies; None if they are not kept."""
        self._evaluation_views: dict[int, Tensor] | None = None
        """By sample index, images transformed as in evaluation; None if they are not kept."""

    def image(self, index: int) -> Image.Image:
        """The image of a sample, RGB."""
        return next(read_images(self.source, [index]))

    def kind_of_photographs(self) -> str | None:
        """What makes most images of a sample of the training split photographs: colour or size; None for others."""
        indices = self.train_indices[np.linspace(0, len(self.train_indices) - 1, PHOTOGRAPHS_TRIED).astype(int)]
        images = [self.image(int(index)) for index in indices]
        spreads = [np.ptp(np.asarray(image, dtype=np.float32), axis=2).mean() for image in images]
        if float(np.median(spreads)) > GREY_SPREAD:
            return "coloured"
        width, height = (int(np.median(sides)) for sides in zip(*(image.size for image in images), strict=True))
        return f"of {width} x {height} pixels" if min(width, height) > LARGEST_GLYPH_PX else None

    def use_input_spec(self, spec: InputSpec) -> None:
        """Set what the network expects of its inputs. Raises UserError if it takes no images."""
        super().use_input_spec(spec)
        self.input_spec = replace(self.input_spec, max_value=getattr(self.source, "max_value", None))
        num_bytes = len(self.targets) * self.input_spec.channels * self.input_spec.size_px**2
        self._evaluation_views = {} if self.num_workers == 0 and num_bytes <= KEPT_BYTES else None

    @property
    def augments(self) -> bool:
        """Whether training images are augmented."""
        return self.augment != "none"

    def view(self, epoch: int) -> int | None:
        """Number of the augmented version that training shows in an epoch; None: as in evaluation."""
        if not self.augments:
            return None
        return (epoch % self.views or None) if self.frozen_stages(epoch) else epoch

    def shown(self, epoch: int) -> str:
        """What training shows in an epoch and in those that are like it, for people."""
        frozen = self.frozen_stages(epoch) > 0
        if not self.augments or (frozen and self.views == 1):
            return "images as in evaluation"
        return f"{self.views} versions of each image in turn" if frozen else "a new version of each image an epoch"

    def recipe(self, view: int | None) -> dict[str, Any]:
        """Plain values that decide what the network sees of an image in this view; None for evaluation."""
        if view is None:
            return super().recipe(view)
        augmentation = {"augment": self.augment, "flip_probability": self.flip_probability}
        return {**super().recipe(view), **augmentation, "decoded": self.keeps_decoded}

    def dataset(self, split: str | None = None) -> Dataset[Batch]:
        """All images as uint8; see `ImageDataset`."""
        assert self.input_spec is not None, "use_input_spec comes before the loaders"
        evaluation = evaluation_transform(self.input_spec)
        # The same views whether decoded copies could be kept or not.
        training = training_transform(self.input_spec, self.augment, self.flip_probability, shrink=self.keeps_decoded)
        decoded = self.decoded.get(split or "")
        transforms = (evaluation, training)
        return ImageDataset(self.source, decoded, self.labels.tensor, *transforms, self.seed, self._evaluation_views)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise on the device; until here images are uint8."""
        assert self.input_spec is not None
        assert isinstance(batch.inputs, Tensor)
        inputs = normalise(batch.inputs, self.input_spec)
        # Lightning converts the precision before this hook, when images are still integers.
        return batch._replace(inputs=self.trainer.precision_plugin.convert_input(inputs) if self.trainer else inputs)


class ImageDataset(Dataset[Batch]):
    """Batches of uint8 images (B, C, H, W), a pure function of the request.

    Args:
        source: the images.
        decoded: reads decoded copies in place of the source's images; None if there are none.
        targets: target of every sample, (N,) or (N, C).
        evaluation: transform of images without a view.
        training: random transform of images with a view.
        seed: seed of the views.
        kept: results of `evaluation` by sample index, to which new ones are added; None to keep none.
    """

    def __init__(
        self,
        source: Source,
        decoded: ReadDecoded | None,
        targets: Tensor,
        evaluation: Transform,
        training: Transform,
        seed: int,
        kept: dict[int, Tensor] | None = None,
    ):
        self.source, self.decoded, self.kept = source, decoded, kept
        self.targets, self.seed = targets, seed
        self.evaluation, self.training = evaluation, training

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, request: BatchRequest) -> Batch:
        index = torch.tensor(request.indices)
        views = (
            self._evaluated(request.indices) if request.view is None else self._augmented(request.indices, request.view)
        )
        return Batch(torch.stack(views), self.targets[index], index, view=request.view, total=request.total)

    def _evaluated(self, indices: Sequence[int]) -> list[Tensor]:
        views = {} if self.kept is None else self.kept
        new = [index for index in indices if index not in views]
        views.update(zip(new, map(self.evaluation, self._images(new, True)), strict=True))
        return [views[index] for index in indices]

    def _augmented(self, indices: Sequence[int], view: int) -> list[Tensor]:
        views = []
        for index, image in zip(indices, self._images(indices, False), strict=True):
            with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from torch's global generator
                torch.default_generator.manual_seed(seed_of(self.seed, view, index))
                views.append(self.training(image))
        return views

    def _images(self, indices: Sequence[int], evaluation: bool) -> Iterator[Image.Image]:
        """Yield these images, RGB; for evaluation none that was shrunk for random crops."""
        if self.decoded is not None:
            return self.decoded(indices, evaluation)
        return read_images(self.source, indices)
