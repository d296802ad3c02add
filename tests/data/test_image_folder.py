"""Folders of photographs: layouts, names, what is odd and what is refused."""

import os
import pickle
import shutil
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from tests.conftest import TINY
from tests.data.zoo import bad_files, odd_images
from tests.photos import photos
from thaw.check import check
from thaw.config.assemble import split_data
from thaw.data.image_folder import ImageFolder
from thaw.data.image_module import ImageDataModule
from thaw.data.loader import default_workers
from thaw.data.source import read_facts
from thaw.evaluate import evaluate
from thaw.exporting import run_onnx
from thaw.exporting.images import Images
from thaw.predicting.images import ImagePredictionDataset
from thaw.train import train
from thaw.types import BatchRequest, ImageSpec

Config = Callable[..., DictConfig]

SPEC = ImageSpec(20, 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 0.8)


@pytest.fixture
def source(config: Config, tmp_path: Path) -> Callable[..., ImageDataModule]:
    """The data of a folder, by default one with 8 photographs each of blue, green and red."""

    def build_source(root: Path | None = None, *choices: str) -> ImageDataModule:
        root = root or photos(tmp_path)
        data = split_data(config("data=image_folder", f"data.root={root}", "data.num_workers=0", *choices))
        data.use_input_spec(SPEC)
        assert isinstance(data, ImageDataModule)
        return data

    return build_source


def split_folders(root: Path, **splits: tuple[str, ...]) -> Path:
    """root/<split>/<class>/* with four photographs each."""
    made = photos(root / "made", per_class=12)
    for number, (split, classes) in enumerate(splits.items()):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                shutil.copy(made / name / f"{number * 4 + i}.png", root / split / name)
    shutil.rmtree(root / "made")
    return root


ALL = ("blue", "green", "red")


def classes_beside_a_split(root: Path) -> None:
    """root/{blue,green,red}/* and root/test/{blue,green,red}/*."""
    split_folders(root, test=ALL)
    for name in ALL:
        shutil.copytree(root / "test" / name, root / name)


def microscope(root: Path, bits: int = 12) -> Path:
    """root/{dark,light}/*.png with 6 images each of 16 bits, of which only `bits` are used."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for i in range(6):
            pixels = generator.integers(0, 2 ** (bits - 1), (16, 16), dtype=np.uint16) + number * 2 ** (bits - 1)
            pixels[0, 0] = 2 ** (bits - 1 + number) - 1
            Image.fromarray(pixels.astype(np.uint16)).save(root / name / f"{i}.png")
    return root


def test_images_of_fewer_bits_than_their_files_are_reported_and_may_be_stretched(
    source: Callable[..., ImageDataModule], tmp_path: Path
) -> None:
    root = microscope(tmp_path / "root")
    plain, again = source(root), source(root)  # the second one knows the files
    for data in (plain, again):
        (warning,) = data.warnings()
        assert "none of the 12 images of 16 bits has a value above 4,095" in warning
        assert "data.max_value=4095" in warning
        assert warning.splitlines()[0] in data.summary()
    stretched = source(root, "data.max_value=4095", "data.augment=none")
    assert stretched.warnings() == []
    assert np.asarray(plain.image(11)).max() == 16
    assert np.asarray(stretched.image(11)).max() == 255
    assert stretched.input_spec.max_value == 4095, "which the run folder keeps"
    (batch,) = stretched.dataset()[BatchRequest([11], None)].inputs
    predicted, _ = ImagePredictionDataset([stretched.source.files[11]], stretched.input_spec)[[0]]
    runner = run_onnx.image_inputs([str(stretched.source.files[11])], Images(stretched.input_spec).preprocessing)
    for later in (predicted, torch.from_numpy(runner["images"])):
        assert later is not None
        assert torch.equal(later[0], batch), "later commands show it alike"
    assert not {*map(stretched.identity, range(12))} & {*map(plain.identity, range(12))}
    assert source(microscope(tmp_path / "whole", bits=16)).warnings() == []
    (ignored,) = source(None, "data.max_value=4095").warnings()
    assert ignored == "data.max_value=4095 is ignored: no image has 16 bits"
    with pytest.raises(ValueError, match=r"6 of 12 images cannot be .*(?s:.*)pixels reach 4,095, above data.max_value"):
        source(root, "data.max_value=3000")


def test_a_folder_a_class_is_split_in_proportion(source: Callable[..., ImageDataModule]) -> None:
    data = source()
    assert data.class_names == ["blue", "green", "red"]
    assert [sum(data.labels.counts(part)) for part in data.parts.values()] == [16, 4, 4]
    everything = np.concatenate(list(data.parts.values()))
    assert sorted(everything) == list(range(24))
    assert all(min(data.labels.counts(part)) >= 1 for part in data.parts.values())
    for index, file in enumerate(data.source.files):
        assert data.class_names[data.targets[index]] == file.parent.name


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        *(("train", val, "test") for val in ("val", "valid", "validation", "dev", "Validation")),
        ("Training", "val", "Testing"),
    ],
)
def test_folders_of_splits_are_taken_as_they_are(
    source: Callable[..., ImageDataModule], tmp_path: Path, train: str, val: str, test: str
) -> None:
    data = source(split_folders(tmp_path / "root", **{train: ALL, val: ALL, test: ALL}))
    for name, part in data.parts.items():
        folder = {"train": train, "val": val, "test": test}[name]
        assert {data.source.files[i].parent.parent.name for i in part} == {folder}
        assert data.labels.counts(part) == [4, 4, 4]


def test_a_missing_split_is_cut_from_train(source: Callable[..., ImageDataModule], tmp_path: Path) -> None:
    root = split_folders(tmp_path / "root", train=ALL, test=ALL)
    data = source(root, "data.val_fraction=0.25")
    assert [data.labels.counts(part) for part in data.parts.values()] == [[3, 3, 3], [1, 1, 1], [4, 4, 4]]
    shutil.rmtree(root / "test")
    without = source(root, "data.val_fraction=0.25", "data.test_fraction=0")
    assert [sum(without.labels.counts(part)) for part in without.parts.values()] == [9, 3, 0]


def test_a_split_that_lacks_a_class_does_not_shift_labels(
    source: Callable[..., ImageDataModule], tmp_path: Path
) -> None:
    data = source(split_folders(tmp_path / "root", train=ALL, val=("green", "red"), test=ALL))
    assert data.class_names == list(ALL)
    for index in data.splits.val:
        assert data.class_names[data.targets[index]] == data.source.files[index].parent.name
    assert "warning: val has no sample of the class blue" in data.report()
    with pytest.raises(ValueError, match="no training sample of the class blue: it could never be learnt"):
        source(split_folders(tmp_path / "other", train=("green", "red"), val=ALL, test=ALL))


def test_classes_called_like_splits_and_accents_written_apart(
    source: Callable[..., ImageDataModule], tmp_path: Path
) -> None:
    root = photos(tmp_path)
    (root / "blue").rename(root / "train")
    (root / "red").rename(root / unicodedata.normalize("NFD", "café"))
    assert source(root).class_names == [unicodedata.normalize("NFC", "café"), "green", "train"]


def test_a_class_is_no_split_for_a_word_in_its_name(source: Callable[..., ImageDataModule], tmp_path: Path) -> None:
    root = photos(tmp_path)
    for name, other in (("red", "intestine"), ("blue", "trainers")):
        (root / other).mkdir()
        shutil.move(root / name, root / other / "deeper")
    assert source(root).class_names == ["green", "intestine", "trainers"]


def test_names_of_no_encoding_are_kept(config: Config, tmp_path: Path) -> None:
    root = photos(tmp_path)
    shutil.copy(root / "red/1.png", os.fsdecode(os.fsencode(root / "red") + b"/caf\xe9.png"))
    quiet = [choice for choice in TINY if not choice.startswith("data.")]
    choices = ("data=image_folder", f"data.root={root}", "data.num_workers=0", "+backbone.channels=3")
    train(config(*quiet, *choices, "freezing=head_only", "freezing.epochs=1"))
    assert evaluate(config(f"run={tmp_path / 'run'}", name="evaluate"))


def test_what_is_not_used_is_said(source: Callable[..., ImageDataModule], tmp_path: Path) -> None:
    root = photos(tmp_path)
    (root / ".git").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "empty").mkdir()
    (root / "red/deeper").mkdir()
    shutil.copy(root / "red/0.png", root / "red/deeper/x.png")
    shutil.copy(root / "red/0.png", root / "red/._0.png")
    shutil.copy(root / "red/0.png", root / "stray.png")
    (root / "red/notes.txt").write_text("mine")
    os.symlink(root, root / "red/loop")
    os.symlink(root / "red/deeper", root / "red/same")
    data = source(root)
    report = data.report()
    assert data.class_names == list(ALL)
    assert len(data.source.files) == 25, "the one below red/deeper is used once, the loop is not followed"
    for said in ("red/loop (a link to a folder above)", "red/same (a link to a folder that is read already)"):
        assert said in report
    for said in (".git (hidden)", "__MACOSX (hidden)", "empty (a folder without images)", "._0.png (hidden)"):
        assert said in report
    assert "notes.txt (not an image by its name)" in report
    assert "stray.png (outside the folders of the classes)" in report
    assert "identical" not in report, "red/deeper/x.png shares a split with red/0.png"


def test_leaks_and_contradictions_are_reported(source: Callable[..., ImageDataModule], tmp_path: Path) -> None:
    root = split_folders(tmp_path / "root", train=ALL, val=ALL, test=ALL)
    shutil.copy(root / "train/red/0.png", root / "test/red/again.png")
    shutil.copy(root / "train/red/1.png", root / "train/blue/also.png")
    report = source(root).report()
    assert "1 groups of identical images lie in different splits" in report
    assert "test/red/again.png = train/red/0.png" in report
    assert "1 groups of identical images have different labels" in report


def test_every_bad_file_is_an_error_or_left_out_and_counted(
    source: Callable[..., ImageDataModule], tmp_path: Path
) -> None:
    root = photos(tmp_path)
    bad = bad_files(root / "red")
    with pytest.raises(ValueError, match=rf"{len(bad)} of {24 + len(bad)} images cannot be loaded") as error:
        source(root)
    for file, said in bad.items():
        assert any(str(file) in line and said in line for line in str(error.value).splitlines()), file
    assert "data.on_bad=leave_out" in str(error.value)
    data = source(root, "data.on_bad=leave_out")
    assert len(data.source.files) == 24
    assert f"{len(bad)} left out: they cannot be used" in data.report()
    assert f"{len(bad)} samples were left out" in data.summary()
    for file in bad:
        assert str(file) in data.report()


def test_odd_images_become_batches(source: Callable[..., ImageDataModule], tmp_path: Path) -> None:
    root = photos(tmp_path)
    zoo = odd_images(root / "odd")
    data = source(root)
    assert len(data.source.files) == 24 + len(zoo)
    for index, file in enumerate(data.source.files):
        if file in zoo:
            pixels, off = zoo[file]
            shown = np.asarray(data.image(index))
            assert shown.shape == pixels.shape, file
            assert np.abs(shown.astype(int) - pixels).max() <= off, "turned upright once"
    for augment in ("none", "light", "strong"):
        data.augment = augment
        batch = data.dataset()[BatchRequest(list(range(len(data.source.files))), 3)]
        assert batch.inputs.shape == (len(data.source.files), 3, 20, 20)
        assert batch.inputs.dtype == torch.uint8


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text("x"), "is not a folder"),
        (lambda root: root.mkdir(), "a folder for each class is expected"),
        (lambda root: photos(root.parent).joinpath("red").rename(root), "a folder for each class is expected"),
        (
            lambda root: split_folders(root, val=ALL, test=ALL),
            "test and val, but nothing to train on: name a part train",
        ),
        (lambda root: split_folders(root, train=ALL, val=ALL, valid=ALL), "are the same split"),
        (lambda root: split_folders(root, only=("red",)), "at least two classes"),
        (lambda root: split_folders(root, my_train=ALL, my_test=ALL), "my_test seems to be a split and no class"),
        (
            lambda root: classes_beside_a_split(root),
            "root/test seems to be a split and no class: it holds .* blue, green",
        ),
    ],
)
def test_folders_that_cannot_be_used_are_refused(
    source: Callable[..., ImageDataModule], tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path / "root")
    with pytest.raises(ValueError, match=said):
        source(tmp_path / "root")


def nested(root: Path, *paths: str) -> Path:
    """root/<path>/{0..5}.png, each a noise of its own."""
    generator = np.random.default_rng(0)
    for path in paths:
        (root / path).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / path / f"{i}.png")
    return root


def crossed(above: str, below: str) -> list[str]:
    return [f"{one}/{other}" for one in above.split() for other in below.split()]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (crossed("color grey", "cat dog"), "set: .*color, grey .* cat, dog"),
        (crossed("p1 p2 p3", "0 1"), "0, 1"),
        (["p1/0", "p1/1", "p2/1", "p3/0"], "0, 1"),
        (crossed("cat dog", "images masks"), "images, masks"),
        ([f"train/{path}" for path in crossed("cat dog", "images masks")], "set/train: "),
    ],
)
def test_folders_with_two_readings_are_refused_with_both(
    source: Callable[..., ImageDataModule], tmp_path: Path, paths: list[str], said: str
) -> None:
    root = nested(tmp_path / "set", *paths)
    with pytest.raises(ValueError, match=said) as error:
        source(root)
    for choice in ("data.class_level=1", "data.class_level=2", "data.exclude="):
        assert choice in str(error.value)
    upper, lower = (sorted({path.removeprefix("train/").split("/")[level] for path in paths}) for level in (0, 1))
    assert source(root, "data.class_level=1").class_names == upper
    assert source(root, "data.class_level=2").class_names == lower


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (["x/train/cat", "x/train/dog", "x/test/cat", "x/test/dog"], "set/x"),
        (["x/cat", "x/dog"], "set/x"),
        (["x/y/cat", "x/y/dog"], "set/x/y"),
        (["x/train/cat", "x/train/dog"], "set/x/train"),
    ],
)
def test_a_folder_above_the_data_is_refused_with_the_one_to_name(
    source: Callable[..., ImageDataModule], tmp_path: Path, paths: list[str], named: str
) -> None:
    root = nested(tmp_path / "set", *paths)
    with pytest.raises(ValueError, match=rf"data.root=\S*/{named}$") as error:
        source(root)
    assert source(Path(str(error.value).rpartition("=")[2])).class_names == ["cat", "dog"]


def test_a_folder_below_the_classes_is_refused_with_the_one_above(
    source: Callable[..., ImageDataModule], tmp_path: Path
) -> None:
    root = nested(tmp_path / "set", "cat", "dog")
    with pytest.raises(ValueError, match=r"a folder for each class is expected(?s:.*)data.root=\S*/set\b"):
        source(root / "cat")


def test_what_is_excluded_is_not_read_at_any_level(source: Callable[..., ImageDataModule], tmp_path: Path) -> None:
    root = nested(tmp_path / "set", *crossed("cat dog", "images masks"), "grey/cat/images")
    shutil.copy(root / "cat/images/0.png", root / "cat/images/0_mask.png")
    data = source(root, "data.exclude=[masks,grey,'*_mask.png']")
    assert data.class_names == ["cat", "dog"]
    assert {file.parent.name for file in data.source.files} == {"images"}
    assert len(data.source.files) == 12
    for said in ("set/grey (data.exclude)", "cat/masks (data.exclude)", "0_mask.png (data.exclude)"):
        assert said in data.report()
    (unused,) = source(root, "data.exclude=[mask]", "data.class_level=1").warnings()
    assert unused.startswith("data.exclude: mask matches no folder and no image")
    with pytest.raises(ValueError, match=r"data.exclude is a list of names .*data.exclude=\[masks\]"):
        source(root, "data.exclude=masks")
    with pytest.raises(ValueError, match=r"no images in folders(?s:.*)data.class_level=4"):
        source(root, "data.class_level=4")


def test_too_few_images_are_named_by_class(source: Callable[..., ImageDataModule], tmp_path: Path) -> None:
    root = photos(tmp_path)
    for number in range(2, 8):
        (root / f"green/{number}.png").unlink()
    with pytest.raises(
        ValueError, match=r"at least 3 different samples, one for each part of the data; too few: green \(2\)"
    ):
        source(root)


def test_a_batch_is_a_function_of_its_key(source: Callable[..., ImageDataModule]) -> None:
    data = source(None, "data.augment=strong")
    first, again = data.dataset(), data.dataset()
    whole = first[BatchRequest([0, 9, 17], 2)]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(again[BatchRequest([0, 9, 17], 2)].inputs, whole.inputs)
    assert torch.equal(again[BatchRequest([17], 2)].inputs[0], whole.inputs[2]), "whatever is beside it"
    assert torch.equal(torch.get_rng_state(), state), "and takes nothing from others"
    assert not torch.equal(again[BatchRequest([0, 9, 17], 3)].inputs, whole.inputs)
    assert torch.equal(whole.target, torch.from_numpy(data.targets)[[0, 9, 17]])
    evaluation = first[BatchRequest([0, 9, 17], None)].inputs
    assert torch.equal(evaluation, first[BatchRequest([0, 9, 17], None)].inputs)


def test_training_augments_with_workers_as_without_and_evaluation_does_not(
    config: Config, source: Callable[..., ImageDataModule], tmp_path: Path
) -> None:
    data = source()
    other = split_data(
        config("data=image_folder", f"data.root={tmp_path / 'photos'}", f"data.num_workers={min(2, default_workers())}")
    )
    other.use_input_spec(SPEC)
    for loader in ("train_dataloader", "val_dataloader"):
        for one, two in zip(getattr(data, loader)(), getattr(other, loader)(), strict=True):
            assert torch.equal(one.inputs, two.inputs)
            assert torch.equal(one.index, two.index)
            plain = data.dataset()[BatchRequest(one.index.tolist(), None)].inputs
            assert torch.equal(one.inputs, plain) == (loader == "val_dataloader")


def test_images_are_normalised_last(source: Callable[..., ImageDataModule]) -> None:
    data = source()
    batch = next(iter(data.val_dataloader()))
    normalised = data.on_after_batch_transfer(batch, 0)
    assert torch.allclose(normalised.inputs, (batch.inputs.float() / 255 - 0.5) / 0.5, atol=1e-6)


@pytest.mark.parametrize(
    "choices",
    [
        ("trainer.precision=bf16-true", "data.balance=loss"),
        ("trainer.precision=64-true",),
        ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0", "optimizer.fused=true"),
    ],
)
def test_photographs_train_in_every_precision(config: Config, tmp_path: Path, choices: tuple[str, ...]) -> None:
    quiet = [choice for choice in TINY if not choice.startswith("data.")]
    source = ("data=image_folder", f"data.root={photos(tmp_path)}", "data.num_workers=0", "+backbone.channels=3")
    metrics = train(config(*quiet, *source, "freezing=full", "freezing.epochs=1", *choices))
    assert metrics["loss/train"] > 0


def test_what_a_thread_ignores_is_not_ignored_later(source: Callable[..., ImageDataModule]) -> None:
    before = list(warnings.filters)
    source()
    assert warnings.filters == before


def test_check_reports_without_a_backbone(config: Config, tmp_path: Path) -> None:
    root = photos(tmp_path)
    Image.new("RGB", (4, 4)).save(root / "red/also.png")
    report = check(config("data=image_folder", f"data.root={root}", name="check"))
    assert "3 classes" in report
    (root / "red/broken.png").write_bytes(b"")
    shutil.copy(root / "blue/1.png", root / "red/leak.png")
    with pytest.raises(ValueError, match=r"^1 sample cannot be used.*data.on_bad=leave_out") as error:
        check(config("data=image_folder", f"data.root={root}", name="check"))
    for said in ("3 classes", "red/broken.png: empty", "1 groups of identical images have different labels"):
        assert said in str(error.value)
    for number in range(2, 8):
        (root / f"green/{number}.png").unlink()
    with pytest.raises(ValueError, match=r"red/broken.png: empty\n.*too few: green \(2\)"):
        check(config("data=image_folder", f"data.root={root}", name="check"))


def test_loader_processes_get_a_copy_without_the_trainer(source: Callable[..., ImageDataModule]) -> None:
    data = source()
    data.trainer = lambda: None  # type: ignore[assignment]  # cannot be pickled, as where processes are spawned
    copy = pickle.loads(pickle.dumps(data.dataset()))
    key = BatchRequest([3, 4], 1)
    assert torch.equal(copy[key].inputs, data.dataset()[key].inputs)


class Cropped(ImageFolder):
    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = super().__getitem__(index)
        return image.crop((0, 0, 5, 5)), label


def test_a_derived_source_that_reads_images_in_another_way_has_contents_of_its_own(tmp_path: Path) -> None:
    folder = str(photos(tmp_path))
    plain, cropped = (read_facts(kind(folder, on_bad="error")) for kind in (ImageFolder, Cropped))
    assert plain.names == cropped.names
    assert not {*(plain.digests or ())} & {*(cropped.digests or ())}


@pytest.mark.parametrize(
    ("mode", "size", "kind"),
    [
        ("RGB", (40, 30), "coloured"),
        ("L", (28, 28), None),
        ("L", (90, 70), "of 90 x 70 pixels"),
        ("L", (200, 40), None),
    ],
)
def test_photographs_are_told_from_letters(
    source: Callable[..., ImageDataModule], tmp_path: Path, mode: str, size: tuple[int, int], kind: str | None
) -> None:
    root = photos(tmp_path, size=size)
    for file in root.rglob("*.png"):
        Image.open(file).convert(mode).convert("RGB").save(file.with_suffix(".jpg"))
        file.unlink()
    assert source(root).kind_of_photographs() == kind
