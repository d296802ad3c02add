import numpy as np
import pytest
from matplotlib.colors import to_hex

from tests.reporting.pictures.drawn import texts
from thaw.reporting.pictures.images import image_grid, views_grid
from thaw.reporting.pictures.render import rgb
from thaw.reporting.pictures.style import GREEN, ORANGE

RANDOM = np.random.default_rng(0)
SIZES = [(5, 5), (500, 400), (8, 8, 3), (30, 300, 3)]
IMAGES = [RANDOM.integers(0, 256, size, np.uint8) for size in SIZES]


def test_every_image_is_shown_whole_with_its_caption() -> None:
    figure = image_grid(IMAGES, ["one", "two", "three", "true 3 / predicted 8, 97 %"])
    for shown, image in zip(figure.axes[0].images, IMAGES, strict=True):
        np.testing.assert_array_equal(np.asarray(shown.get_array()), image)
        left, right, bottom, top = shown.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(image.shape[1] / image.shape[0])
    assert {"one", "two", "three", "true 3 / predicted 8, 97\xa0%".replace("\xa0", " ")} <= set(texts(figure))


def test_small_images_are_enlarged_without_smoothing_and_large_ones_are_not_thinned() -> None:
    board = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((2, 2), int)).astype(np.uint8) * 255
    figure = image_grid([board], [""])
    box = figure.axes[0].images[0].get_window_extent()
    pixels = rgb(figure)[::-1][int(box.y0) + 3 : int(box.y1) - 3, int(box.x0) + 3 : int(box.x1) - 3]
    assert set(np.unique(pixels)) == {0, 255}
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (250, 250))
    pixels = rgb(image_grid([fine], [""]))[60:100, 60:100]
    assert 100 < pixels.min() <= pixels.max() < 155  # grey, not a pattern of those pixels that were met


def test_frame_and_mark_say_what_is_right() -> None:
    figure = image_grid(IMAGES[:2], ["a", "b"], [True, False])
    (axes,) = figure.axes
    assert [to_hex(frame.get_edgecolor()).upper() for frame in axes.patches] == [GREEN, ORANGE]
    assert [text.get_text() for text in axes.texts] == ["✓", "a", "✗", "b"]


def test_captions_overlap_neither_each_other_nor_images() -> None:
    figure = image_grid(
        [IMAGES[0]] * 14, ["true Groove-billed albatross / predicted 호랑이 호랑이 호랑이, 97 %" * 2] * 14
    )
    rgb(figure)
    (axes,) = figure.axes
    boxes = [shown.get_window_extent() for shown in (*axes.texts, *axes.images)]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(box.x0 >= 0 and box.x1 <= 800 and box.y0 >= 0 for box in boxes)


def test_views_stand_beside_their_original() -> None:
    views = [[IMAGES[2], IMAGES[3]], [IMAGES[0]]]
    figure = views_grid(IMAGES[:2], views)
    shown = figure.axes[0].images
    for image, expected in zip(shown, [IMAGES[0], *views[0], IMAGES[1], *views[1]], strict=True):
        np.testing.assert_array_equal(np.asarray(image.get_array()), expected)
    bottoms = [round(image.get_extent()[2], 3) for image in shown]
    assert bottoms[0] == bottoms[1] == bottoms[2] < bottoms[3] == bottoms[4]
    assert texts(views_grid(IMAGES[:2], views, ["as it is"])) == ["original", "as it is", "view 2"]
    assert texts(figure) == ["original", "view 1", "view 2"]


def test_what_does_not_belong_together_is_refused() -> None:
    assert texts(image_grid([], [])) == texts(views_grid([], [])) == ["no images"]
    with pytest.raises(ValueError, match="not 1 images, 2 captions"):
        image_grid(IMAGES[:1], ["a", "b"])
    with pytest.raises(ValueError, match=r"not float64 \(2, 2\)"):
        image_grid([np.zeros((2, 2))], ["a"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="one sequence of views for each original, not 0 for 1"):
        views_grid(IMAGES[:1], [])
