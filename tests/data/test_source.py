"""Sources that a user writes: what is asked of them, and what is said if they are otherwise."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import ExifTags, Image
from torch import Tensor
from torch.utils.data import Dataset

from tests.conftest import TINY
from thaw.config import build, resume
from thaw.config.assemble import split_data
from thaw.config.recorded import read_config
from thaw.data import image_module
from thaw.data.digits import Digits
from thaw.data.image_module import ImageDataModule
from thaw.data.source import content_digests, read_facts, read_images
from thaw.data.text_module import TextDataModule
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.export import export
from thaw.train import train
from thaw.types import BatchRequest, ImageSpec

Config = Callable[..., DictConfig]

GREY = np.full((8, 8), 7, np.uint8)
QUIET = [choice for choice in TINY if not choice.startswith("data.")]
SETTINGS: dict[str, Any] = {
    **{"seed": 0, "batch_size": 2, "num_workers": 0, "shuffle": True, "balance": "none", "val_fraction": 0.2},
    **{"test_fraction": 0.2, "labels_per_class": None, "fold": None, "folds": 5},
}


class Listed:
    """Samples from a list. `attributes`: whatever else the source has."""

    def __init__(self, samples: Sequence[Any], **attributes: Any):
        self.samples, self.read = samples, list[int]()
        vars(self).update({"class_names": ["a", "b"], **attributes})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return self.samples[index]


class Batched(Listed):
    """Notes in `asked` what `__getitems__` was called with."""

    def __init__(self, samples: Sequence[Any], **attributes: Any):
        super().__init__(samples, asked=list[list[int]](), **attributes)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        self.asked.append(indices)  # type: ignore[attr-defined]
        return [self.samples[index] for index in indices]


class PlainImages(Dataset[Any]):
    """A plain Dataset of torch, but for the names of its classes."""

    class_names = ("dark", "light")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = torch.randint(0, 100, (3, 10, 8), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return pixels + 100 * (index % 2), torch.tensor(index % 2)


class PlainTexts(Dataset[Any]):
    class_names = ("bad", "good")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[str, int]:
        return f"{['awful', 'great'][index % 2]} film {index}", index % 2


GOOD = [(GREY, 0), (GREY, 1)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (SimpleNamespace(class_names=["a"]), "SimpleNamespace is no data source: it lacks __len__ or __getitem__"),
        (Listed(GOOD, class_names=None), r"Listed has no class_names: expected .* self.class_names = \['cat', 'dog'\]"),
        (Listed(GOOD, class_names="ab"), "Listed has class_names='ab': expected the names of the classes as texts"),
        (Listed(GOOD, class_names=[]), r"Listed has class_names=\[\]: expected"),
        (Listed(GOOD, class_names=[0, 1]), r"Listed has class_names=\[0, 1\]: expected the names"),
        (Listed(GOOD, class_names=["a", "b", "a"]), "Listed.class_names has a more than once"),
        (Listed([]), "Listed has no samples"),
        (Listed([GREY, GREY]), r"sample 0 is ndarray of uint8 \(8, 8\): expected a pair \(input, label\)"),
        (Listed([(GREY, 2)]), "the label of sample 0 is 2, but there are 2 class_names: expected 0 to 1"),
        (Listed([(GREY, 0), (GREY, -1)]), "the label of sample 1 is -1, but there are 2 class_names"),
        (
            Listed([(GREY, "a")]),
            r"the label of sample 0 is 'a' \(str\): expected its number .*class_names.index\('a'\)",
        ),
        (Listed([(GREY, 0), (GREY, 1.0)]), r"the label of sample 1 is 1.0 \(float\): expected its number"),
        (Listed(GOOD, targets=[[1, 0], [0, 1]]), r"the label of sample 0 is \[1, 0\] \(list\)"),
        (
            Listed([(GREY / 255, 0)]),
            r"sample 0 is ndarray of float64 \(8, 8\): .*np.rint\(255 \* x\).astype\(np.uint8\)",
        ),
        (Listed([(torch.rand(1, 8, 8), 0)]), r"sample 0 is Tensor of float32 \(1, 8, 8\): .*\.to\(torch.uint8\)"),
        (Listed([(GREY.astype(int), 0)]), r"ndarray of int64 \(8, 8\): expected a PIL image, a uint8 array \(H, W\)"),
        (Listed([(np.stack([GREY] * 3), 0)]), r"ndarray of uint8 \(3, 8, 8\): expected .* or \(H, W, 3\)"),
        (Listed([(torch.zeros(2, 8, 8, dtype=torch.uint8), 0)]), r"Tensor of uint8 \(2, 8, 8\): expected"),
        (Listed([({"pixels": 0}, 0)]), r"sample 0 is \{'pixels': 0\} \(dict\): expected a PIL image, .* text \(str\)"),
        (Listed([(Image.new("F", (8, 8)), 0)]), "sample 0 cannot be decoded: its pixels are floating-point numbers"),
        (Listed([("so", 0), (None, 1)]), r"sample 1 is None \(NoneType\): expected a text \(str\), as sample 0 is one"),
        (Listed(GOOD, targets=[0]), "Listed.targets has 1 entries for 2 samples: expected one for each, in the order"),
        (Listed(GOOD, splits=["val"] * 3), "Listed.splits has 3 entries for 2 samples"),
        (Listed(GOOD, names=["x"]), "Listed.names has 1 entries for 2 samples"),
        (Listed(GOOD, digests=[]), "Listed.digests has 0 entries for 2 samples"),
        (Listed(GOOD, splits=["train", "later"]), "Listed.splits has 'later': expected train, val, test or None"),
        (Listed(GOOD, targets=[1, 1]), "Listed.targets has the label b for sample 0, and the sample itself has a"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(bad: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_facts(bad)


def test_a_later_sample_that_is_no_image_is_named() -> None:
    with pytest.raises(UserError, match=r"sample 1 is 'so' \(str\): expected a PIL image"):
        list(read_images(Listed([(GREY, 0), ("so", 1)]), [0, 1]))
    with pytest.raises(UserError, match="Listed gives images: they belong into an ImageDataModule"):
        TextDataModule(Listed(GOOD), max_length_tokens=None, pad_multiple_tokens=1, **SETTINGS)


def test_each_kind_of_image_becomes_the_same_rgb() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    colour = [pixels, Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)]
    grey = [pixels[..., 0], Image.fromarray(pixels[..., 0]), torch.from_numpy(pixels[..., 0])[None]]
    for same, expected in ((colour, pixels), (grey, pixels[..., :1].repeat(3, axis=2))):
        for image in read_images(Listed([(value, 0) for value in same]), range(3)):
            assert image.mode == "RGB"
            assert (np.asarray(image) == expected).all()
    turned = Image.new("RGB", (4, 2))
    turned.getexif()[ExifTags.Base.Orientation] = 6
    (upright,) = read_images(Listed([(turned, 0)]), [0])
    assert upright.size == (2, 4)


def test_only_what_the_attributes_do_not_say_is_read() -> None:
    silent = Listed(GOOD * 40)
    facts = read_facts(silent)
    assert facts.labels.targets.tolist() == [0, 1] * 40
    assert sorted({*silent.read}) == list(range(80))
    assert (facts.splits, facts.names, facts.left_out) == (None, None, [])
    assert facts.digests is not None
    assert len(set(facts.digests)) == 1, "of equal images"
    told = Listed(GOOD * 40, targets=torch.tensor([0, 1] * 40), names=range(80), digests=["x"] * 80, notes=("odd",))
    facts = read_facts(told)
    assert {*told.read} == {0}
    assert (facts.labels.targets.tolist(), facts.name(79), facts.notes) == ([0, 1] * 40, "79", ["odd"])


def test_what_stands_for_the_content_of_a_sample() -> None:
    def contents(**attributes: Any) -> list[str]:
        listed = Listed(GOOD, targets=[0, 1], **attributes)
        facts = read_facts(listed)
        listed.read.clear()
        found = content_digests(listed, facts, np.arange(2))
        assert not listed.read, "images were read at the start, if at all"
        return found

    assert contents(digests=["x", "y"], version="1") == ["x", "y"]
    for names in ({}, {"names": "uv"}):
        assert len({*contents(version="1", **names), *contents(version="2", **names)}) == 4
    first, second = contents()
    assert first == second, "of equal images"


def test_a_changed_digit_has_another_content() -> None:
    digits = Digits()
    everything = np.arange(len(digits))
    before = content_digests(digits, read_facts(digits), everything)
    digits.images[3, 4, 5] ^= 1
    after = content_digests(digits, read_facts(digits), everything)
    assert [index for index in everything if before[index] != after[index]] == [3]


def test_whole_batches_are_asked_for_where_the_source_gives_them() -> None:
    batched = Batched([(GREY, index % 2) for index in range(150)], targets=[0, 1] * 75)
    data = ImageDataModule(batched, augment="light", **SETTINGS)
    data.use_input_spec(ImageSpec(8, 1, (0.5,), (0.5,)))
    batched.asked.clear()  # type: ignore[attr-defined]
    data.dataset()[BatchRequest([5, 3, 8], 0)]
    data.dataset()[BatchRequest(list(range(150)), 0)]
    assert [len(asked) for asked in batched.asked] == [3, 64, 64, 22]  # type: ignore[attr-defined]
    assert batched.asked[0] == [5, 3, 8]  # type: ignore[attr-defined]
    assert batched.read == []
    batched.__class__ = type("Short", (Batched,), {"__getitems__": lambda self, indices: []})
    with pytest.raises(UserError, match=r"Short.__getitems__ gave 0 samples for 1 indices"):
        data.image(0)


@pytest.mark.parametrize(("workers", "most", "reads"), [(0, 2**20, 0), (0, 1, 10), (1, 2**20, 10)])
def test_images_as_in_evaluation_stay_in_memory_where_that_is_cheap(
    monkeypatch: pytest.MonkeyPatch, workers: int, most: int, reads: int
) -> None:
    monkeypatch.setattr(image_module, "KEPT_BYTES", most)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 9, 9), dtype=np.uint8)
    listed = Listed([(image, index % 2) for index, image in enumerate(pixels)], targets=[0, 1] * 5)
    data = ImageDataModule(listed, **{**SETTINGS, "num_workers": workers})
    request = BatchRequest(list(range(10)), None)
    small, large = ImageSpec(6, 1, (0.5,), (0.5,)), ImageSpec(12, 3, (0.5,) * 3, (0.5,) * 3)
    data.use_input_spec(small)
    first = data.dataset()[request].inputs
    listed.read.clear()
    assert torch.equal(data.dataset("val")[request].inputs, first)
    assert len(listed.read) == reads
    data.use_input_spec(large)
    assert data.dataset()[request].inputs.shape == (10, 3, 12, 12), "of another network"
    data.use_input_spec(small)
    assert torch.equal(data.dataset()[request].inputs, first)


def test_missing_classes_and_duplicates_are_reported_of_any_source() -> None:
    splits = ["train", "train", "val", "val", "test", "test"]
    shades = [np.full((8, 8), shade, np.uint8) for shade in (1, 2, 2, 3, 4, 5)]
    images = Listed(list(zip(shades, (0, 1, 0, 1, 0, 0), strict=True)), splits=splits, names="uvwxyz")
    data = ImageDataModule(images, **SETTINGS)
    data.split()
    missing, leak, contradiction = data.warnings()
    assert missing == "test has no sample of the class b"
    assert leak.startswith("1 groups of identical images lie in different splits")
    assert leak.endswith(":\n  v = w")
    assert contradiction == "1 groups of identical images have different labels:\n  v = w"
    assert data.identity(2).name == "w"
    assert data.identity(1).content == data.identity(2).content != data.identity(3).content


@pytest.mark.parametrize("settings", [{}, {"fold": 1}, {"labels_per_class": 3}])
@pytest.mark.parametrize("kind", [ImageDataModule, TextDataModule])
def test_equal_samples_share_a_split(kind: Any, settings: dict[str, Any]) -> None:
    numbers = [*range(60), *range(0, 60, 4), *range(0, 60, 6)]
    values = numbers if kind is TextDataModule else [np.full((8, 8), number, np.uint8) for number in numbers]
    source = Listed([(str(v) if kind is TextDataModule else v, n % 2) for v, n in zip(values, numbers, strict=True)])
    more = {"max_length_tokens": None, "pad_multiple_tokens": 1} if kind is TextDataModule else {}
    data = kind(source, **{**SETTINGS, **more, **settings})
    data.split()
    used = [{data.identity(index).content for index in part} for part in data.parts.values()]
    assert sum(map(len, used)) == len(set.union(*used))
    assert data.warnings() == []
    assert [len(part) for part in (data.splits.val, data.splits.test)] == [17, 17]


def images(*more: str) -> list[str]:
    source = ["data=shared/images", "+data._target_=tests.data.test_source.PlainImages", "+backbone.channels=3"]
    short = ["data.num_workers=0", "freezing.probe_epochs=1", "freezing.epochs=2"]
    return [*QUIET, *source, *short, *more]


def texts(*more: str) -> list[str]:
    source = ["data=shared/texts", "+data._target_=tests.data.test_source.PlainTexts", "backbone=gru"]
    short = [*QUIET[2:], "freezing.probe_epochs=1", "freezing.epochs=2"]  # without the backbone of TINY
    return [*source, *short, *more]


@pytest.mark.parametrize(
    "choices", [images("data.augment=light", "data.decoded=on"), pytest.param(texts(), marks=pytest.mark.run)]
)
def test_a_plain_dataset_of_torch_is_trained_on_measured_and_exported(
    config: Config, tmp_path: Any, choices: list[str]
) -> None:
    metrics = train(config(*choices))
    run = tmp_path / "run"
    assert evaluate(config(f"run={run}", name="evaluate"))["accuracy/test"] == metrics["accuracy/test"]
    data = split_data(read_config(run))
    assert [sum(data.labels.counts(part)) for part in data.parts.values()] == [28, 6, 6]
    assert export(config(f"run={run}", "format=exported_program", "samples=4", name="export")).is_file()


def test_keys_that_nobody_takes_or_only_the_other_kind_of_data(config: Config) -> None:
    def refused(message: str, *choices: str) -> None:
        with pytest.raises(UserError, match=message):
            build.data(config(*choices))

    accepted = r"unexpected keyword argument 'batchsize'. thaw.data.digits.Digits takes no keys; other .* batch_size,"
    refused(accepted, "+data.batchsize=3")
    refused(r"data.max_length_tokens: .*Digits gives images, which have no such", "+data.max_length_tokens=3")
    refused(r"data.augment: .*PlainTexts gives texts, which have no such setting", *texts("+data.augment=none"))
    cfg = config()
    cfg.data = {"_target_": "thaw.data.digits.Digits", "seed": 0}
    refused(r"data names no source: type data=digits .* or \+data._target_=", "data=shared/images")
    with pytest.raises(UserError, match=r"data lacks num_workers, batch_size, (?s:.*)\n  - shared/images@_here_"):
        build.data(cfg)


class Stored(PlainImages):
    """Images that lie in a file."""

    def __init__(self, file: str):
        self.light = int(np.load(file)["light"])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, label = super().__getitem__(index)
        return pixels + self.light, label


@pytest.mark.run
def test_the_place_of_a_user_s_own_data_may_be_relative_and_change(
    config: Config, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", light=0)
    run, stored = tmp_path / "run", "data._target_=tests.data.test_source.Stored"
    choices = [choice for choice in images() if "data._target_" not in choice]
    train(config(*choices, f"+{stored}", "+data.file=images.npz"))
    assert read_config(run).data.file == str(tmp_path / "images.npz")
    (tmp_path / "images.npz").rename(tmp_path / "moved.npz")
    typed = [f"resume={run}", "+data.file=moved.npz"]
    monkeypatch.setattr(resume, "typed_overrides", lambda: typed)
    train(config(*typed))
    assert read_config(run).data.file == str(tmp_path / "moved.npz")
    assert evaluate(config(f"run={run}", f"+data.file={tmp_path}/moved.npz", name="evaluate"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "/photos/b.png"),
            "^/photos/b.png: No such file or directory$",
        ),
        (OSError("image file is truncated"), "^{sample} cannot be read: image file is truncated$"),
    ],
)
@pytest.mark.parametrize(("at_once", "sample"), [(False, "b"), (True, "one of the samples 0 to 1")])
def test_a_file_that_a_users_source_cannot_read_is_named(error: OSError, said: str, at_once: bool, sample: str) -> None:
    class Broken(Listed):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise error
            return super().__getitem__(index)

    source = Broken(GOOD, names=["a", "b"])
    if at_once:
        source.__getitems__ = lambda indices: [source[index] for index in indices]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=said.format(sample=sample)):
        list(read_images(source, [0, 1]))
