import itertools

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from thaw.data.transforms import ResizeTransform, evaluation_resize, training_resize
from thaw.types import ImageSpec

SIDES = (1, 7, 16, 24, 25, 33, 50, 51, 120)


def spec(channels: int = 3, **choices: object) -> ImageSpec:
    return ImageSpec(20, channels, (0.5,) * channels, (0.5,) * channels, crop_ratio=0.8, **choices)  # type: ignore[arg-type]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8))


def equal(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode and np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("squash", [False, True])
def test_the_form_of_evaluation_is_torchvisions_resize_in_grey_or_colour(interpolation: str, squash: bool) -> None:
    for (width, height), channels in itertools.product(itertools.product(SIDES, SIDES), (1, 3)):
        form = evaluation_resize(spec(channels, interpolation=interpolation, squash=squash))
        image = noise(width, height)
        resize = v2.Resize([25, 25] if squash else 25, InterpolationMode(interpolation))
        expected = resize(v2.Grayscale(1)(image) if channels == 1 else image)
        formed = form(image)
        assert equal(formed, expected), (width, height)
        assert formed.size == form.size(width, height)
        assert equal(form(formed), formed), "what has the form keeps it"


def test_the_form_of_training_shrinks_and_never_enlarges() -> None:
    form = training_resize(spec())
    assert form == ResizeTransform(3, 50, "bilinear", only_shrinks=True)
    for width, height in itertools.product(SIDES, SIDES):
        formed = form(noise(width, height))
        assert formed.size == form.size(width, height)
        if min(width, height) <= 50:
            assert equal(formed, noise(width, height))
        else:
            assert equal(formed, v2.Resize(50)(noise(width, height)))
        assert equal(form(formed), formed)
