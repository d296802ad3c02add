from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.zoo import bad_files, odd_images
from thaw.data.image_file import find_fault, largest_value, load_image


def test_every_odd_image_loads_as_people_see_it(tmp_path: Path) -> None:
    zoo = odd_images(tmp_path)
    assert len(zoo) >= 30
    for file, (expected, off) in zoo.items():
        image = load_image(file)
        assert image.mode == "RGB", file.name
        pixels = np.asarray(image).astype(int)
        assert pixels.shape == expected.shape, file.name
        assert np.abs(pixels - expected).max() <= off, file.name
        assert find_fault(file.read_bytes(), file) is None, file.name


def test_every_bad_file_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    bad = bad_files(tmp_path)
    assert len(bad) >= 15
    for file, said in bad.items():
        with pytest.raises(ValueError, match=said):
            load_image(file)
        if file.is_file() and not file.is_symlink():
            assert said in (find_fault(file.read_bytes(), file) or "nothing"), file.name
    with pytest.raises(ValueError, match="there is no such file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="a folder"):
        load_image(tmp_path)


def test_the_value_that_is_white_may_be_named(tmp_path: Path) -> None:
    deep = np.array([[0, 1000, 2048, 4095]], np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        shown = np.asarray(load_image(tmp_path / name, 4095))
        assert shown[0, :, 0].tolist() == [0, 62, 128, 255]
        assert np.asarray(load_image(tmp_path / name))[0, :, 0].tolist() == [0, 4, 8, 16]
        assert largest_value((tmp_path / name).read_bytes()) == 4095
        with pytest.raises(ValueError, match="its pixels reach 4095, above max_value=4000"):
            load_image(tmp_path / name, 4000)
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "plain.png")
    assert np.asarray(load_image(tmp_path / "plain.png", 4095)).max() == 255, "of 16-bit images only"
    assert largest_value((tmp_path / "plain.png").read_bytes()) is None


def test_the_quick_look_agrees_with_loading_wherever_a_jpeg_is_cut(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    for length in range(0, len(whole), 97):
        file = tmp_path / "cut.jpg"
        file.write_bytes(whole[:length])
        assert find_fault(whole[:length], file) is not None
        with pytest.raises(ValueError, match=r"empty|not an image|cannot be decoded"):
            load_image(file)
