"""Exported files load where thaw is not, and say the same."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from safetensors import safe_open

from tests.conftest import TINY
from tests.data.zoo import odd_images
from tests.language import pretrained
from tests.models.test_gru import TEXTS
from tests.models.test_gru import tiny as tiny_gru
from tests.photos import photos
from tests.test_predict import COLOUR_RUN
from tests.tiny import TwoScales
from thaw.config.assemble import Parts, assemble, run_with_weights
from thaw.config.recorded import read_config
from thaw.data.image_file import load_image
from thaw.data.tokens import tokenise
from thaw.data.transforms import evaluation_transform, normalise
from thaw.export import export
from thaw.exporting import verify
from thaw.exporting.formats import FORMATS, loading_code, write
from thaw.exporting.inference import InferenceModel
from thaw.exporting.run_onnx import preprocess
from thaw.models.backbone import Backbone
from thaw.models.glyphs import glyphs
from thaw.models.heads import linear, mlp
from thaw.models.huggingface import huggingface
from thaw.models.network import Network
from thaw.models.weights import read_class_names, read_weights
from thaw.tasks.single_label import SingleLabel
from thaw.train import train

Config = Callable[..., DictConfig]

WITHOUT_THAW = "import sys; sys.modules['thaw'] = None\n"
"""In front of what must not need it."""


@pytest.fixture
def run(config: Config, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of a finished run of torchvision's smallest network on photographs of three colours, trained once."""
    original = tmp_path_factory.getbasetemp() / "exported_run"
    if not original.exists():
        train_shufflenet(config, original, tmp_path_factory.mktemp("photos"))
    return Path(shutil.copytree(original, tmp_path / "run"))


def train_shufflenet(config: Config, run: Path, folder: Path) -> None:
    quiet = [choice for choice in TINY if not choice.startswith(("backbone", "data"))]
    train(
        config(
            *quiet,
            f"run_folder={run}",
            "data=image_folder",
            f"data.root={photos(folder)}",
            "data.num_workers=0",
            "backbone=torchvision",
            "backbone.name=shufflenet_v2_x0_5",
            "backbone.weights=none",
            "backbone.image_size_px=32",
            "backbone.mean=[0.45,0.45,0.45]",
            "backbone.std=[0.225,0.225,0.225]",
            "freezing=surgical",
            'freezing.train=[head,"*norm*","!conv5"]',
            "freezing.epochs=1",
        )
    )


def trained_parts(run: Path) -> Parts:
    return assemble(read_config(run), run_with_weights(str(run)))


def exported(config: Config, run: Path, form: str) -> Path:
    return export(config(f"run={run}", f"format={form}", "samples=8", name="export"))


BESIDE = {"onnx": {"image_file.py", "run_onnx.py"}}
"""Files of an export beside the network and the card."""


@pytest.mark.parametrize(
    "form",
    [
        "onnx",
        *(pytest.param(form, marks=pytest.mark.run) for form in ("safetensors", "state_dict", "exported_program")),
    ],
)
def test_each_format_agrees_and_says_what_it_is(
    config: Config, run: Path, form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    before = run / "export" / form / FORMATS[form].file
    before.parent.mkdir(parents=True)
    before.write_bytes(b"an export of yesterday")
    file = exported(config, run, form)
    assert file == before
    assert {path.name for path in file.parent.iterdir()} == {file.name, "model_card.md", *BESIDE.get(form, ())}
    assert "8 images: same results" in capsys.readouterr().out
    class_names, preprocessing = metadata(form, file)
    assert class_names == ["blue", "green", "red"]
    assert preprocessing["4_center_crop_px"] == 32

    card = (file.parent / "model_card.md").read_text()
    for part in ("## Intended use", "## Data", "## Plan", "## Metrics", "blue, green, red", "accuracy"):
        assert part in card
    assert "| 1 | 1 | stem (48 parameters)" in card
    code = card.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 5
    use = {
        "onnx": "found = network.run(None, {'images': images.numpy()})[0]",
        "exported_program": "found = network(images).tolist()",
    }.get(form, "found = network((images / 255 - 0.45) / 0.225).softmax(1).tolist()")
    shown = "print([[float(p) for p in row] for row in found])"
    alone = "\n".join([WITHOUT_THAW + code, "import torch", "images = torch.load('images.pt')", use, shown])
    images = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    torch.save(images, file.parent / "images.pt")
    done = subprocess.run([sys.executable, "-c", alone], cwd=file.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = trained_parts(run)
    with torch.inference_mode():
        expected = parts.network(normalise(images, parts.backbone.input_spec)).softmax(1)
    assert np.allclose(np.array(json.loads(done.stdout)), expected, atol=1e-5)
    if form == "exported_program":
        program = torch.export.load(file).module()
        assert torch.allclose(program(images[:1]), expected[:1], atol=1e-5), "a batch of another size"


@pytest.mark.run
@pytest.mark.parametrize("form", ["timm", "huggingface"])
def test_the_card_of_a_folder_for_a_library_runs_as_it_stands(config: Config, tmp_path: Path, form: str) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    quiet = [choice for choice in TINY if not choice.startswith(("backbone", "data"))]
    data = ("data=image_folder", f"data.root={photos(tmp_path)}", "data.num_workers=0", "freezing.epochs=1")
    backbone = ("backbone=timm", "backbone.name=mobilenetv2_035", "backbone.weights=none", "backbone.image_size_px=32")
    train(config(*quiet, *data, *backbone, "freezing=head_only"))
    folder = exported(config, tmp_path / "run", form).parent
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model_card.md", "config.json"}
    card = (folder / "model_card.md").read_text()
    assert str(tmp_path) not in card
    code, after = card.split("```python\n")[1].split("```")[:2]
    expression = after.split("`")[1]
    run_it = f"import torch; inputs = torch.zeros(2, 3, 32, 32)\nprint({expression}.tolist())"
    alone = [sys.executable, "-c", f"{WITHOUT_THAW}{code}\n{run_it}"]
    done = subprocess.run(alone, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        expected = trained_parts(tmp_path / "run").network(torch.zeros(2, 3, 32, 32))
    assert np.allclose(np.array(json.loads(done.stdout)), expected, atol=1e-5)

    new = ("freezing=head_only", f"run_folder={tmp_path}/next", "refit=off")
    train(config(*quiet, *data, *backbone, *new, f"init_from={folder}"))
    before, after = (read_weights(tmp_path / name / "weights.safetensors") for name in ("run", "next"))
    assert torch.equal(before["backbone.conv_stem.weight"], after["backbone.conv_stem.weight"])


@pytest.mark.run
def test_a_rounded_file_is_kept_if_it_agrees_as_well_as_the_user_wants(
    config: Config, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def one_wrong(model: InferenceModel, file: Path, samples: list[str]) -> torch.Tensor:
        assert computed(model, file, samples).shape == (8, 3)  # what rounding does to a hardly trained network varies
        with torch.inference_mode():
            probabilities = model(*model.inputs.read(samples))
        return torch.cat([probabilities[:1].roll(1, dims=1), probabilities[1:]])

    computed = verify._predictions_of_runner
    monkeypatch.setattr(verify, "_predictions_of_runner", one_wrong)
    typed = (f"run={run}", "format=onnx", "precision=fp16", "samples=8")
    with pytest.raises(ValueError, match=r"87.5% of 8 images get the same result.*\(agreement=0.98 is the least share"):
        export(config(*typed, name="export"))
    assert [file for file in (run / "export").rglob("*") if file.is_file()] == []
    file = export(config(*typed, "agreement=0.8", name="export"))
    assert file.parent.name == "onnx_fp16"
    assert "8 images: same result for 87.5%, probabilities differ by at most" in capsys.readouterr().out
    assert "Rounded to fp16. Compared with the network on 8 images: same result" in (
        file.with_name("model_card.md").read_text()
    )
    assert metadata("onnx", file)[0] == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("format=timm precision=int8", "precision=int8 is for format=onnx: leave it out for format=timm"),
        ("agreement=0.9", "agreement is for precision=fp16 and int8"),
    ],
)
def test_keys_of_rounded_files_are_not_ignored(config: Config, typed: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export(config("run=any", *typed.split(), name="export"))


def metadata(form: str, file: Path) -> tuple[list[str], dict[str, Any]]:
    """Class names and preprocessing as a format keeps them."""
    if form == "state_dict":
        content = torch.load(file, weights_only=True)
        return content["class_names"], content["preprocessing"]
    encoded = {"class_names": "", "preprocessing": ""}
    if form == "safetensors":
        with safe_open(file, framework="pt") as opened:
            encoded = opened.metadata()
    elif form == "exported_program":
        torch.export.load(file, extra_files=encoded)
    else:
        encoded = import_module("onnxruntime").InferenceSession(file).get_modelmeta().custom_metadata_map
    return json.loads(encoded["class_names"]), json.loads(encoded["preprocessing"])


def test_an_export_that_does_not_agree_or_load_is_refused_and_nothing_is_left(
    config: Config, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off(*args: object) -> torch.Tensor:
        return reloaded(*args) + 2e-4  # type: ignore[arg-type]

    reloaded = verify._predictions_of_loading_code
    monkeypatch.setattr(verify, "_predictions_of_loading_code", off)
    with pytest.raises(
        ValueError, match=r"100.0% of 8 images get the same result, probabilities differ by up to 2.0e-04"
    ):
        exported(config, run, "state_dict")
    monkeypatch.setattr(verify, "_predictions_of_loading_code", reloaded)
    monkeypatch.setattr(verify, "loading_code", lambda *args: ["raise OSError('no such network')"])
    with pytest.raises(ValueError, match="could not be loaded again, and is not kept: OSError: no such network"):
        exported(config, run, "state_dict")
    assert [file for file in (run / "export").rglob("*") if file.is_file()] == []


def test_the_runner_prepares_images_as_training_did(config: Config, run: Path, tmp_path: Path) -> None:
    parts = trained_parts(run)
    for squash in (False, True):
        backbone = replace(parts.backbone, input_spec=replace(parts.backbone.input_spec, squash=squash))
        model = InferenceModel(parts.network, backbone, parts.module.task, parts.module.class_names)
        preprocessing = json.loads(json.dumps(model.metadata["preprocessing"]))
        transform = evaluation_transform(backbone.input_spec)
        for file in odd_images(tmp_path / f"zoo{squash}"):
            image = load_image(file)
            assert np.array_equal(preprocess(image, preprocessing), transform(image).numpy()), file.name


@pytest.mark.run
def test_a_card_shows_names_as_they_are(config: Config, tmp_path: Path) -> None:
    (photos(tmp_path) / "red").rename(tmp_path / "photos/<script>alert(1)|\n# `red`")
    train(config(*COLOUR_RUN, f"data.root={tmp_path}/photos", "freezing.epochs=1"))
    card = exported(config, tmp_path / "run", "exported_program").with_name("model_card.md").read_text()
    assert "<script" not in card
    assert card.count(r"&lt;script&gt;alert(1)\| # \`red\`") == 2, "in the list of classes and in the table"


@pytest.mark.run
def test_a_backbone_that_nobody_else_can_build_is_exported_whole_only(config: Config, tmp_path: Path) -> None:
    train(config(*TINY, "freezing=head_only", "freezing.epochs=1"))
    with pytest.raises(ValueError, match="Type format=onnx or format=exported_program"):
        exported(config, tmp_path / "run", "safetensors")
    assert exported(config, tmp_path / "run", "exported_program").exists()


@pytest.mark.run
def test_the_shipped_backbone_is_loaded_with_thaw(config: Config, tmp_path: Path) -> None:
    quiet = [choice for choice in TINY if "backbone" not in choice]
    train(config(*quiet, "freezing=head_only", "freezing.epochs=1"))
    assert exported(config, tmp_path / "run", "safetensors").exists()


def new_backbone(kind: str, folder: Path) -> Backbone:
    if kind == "bert":
        return huggingface(str(pretrained(folder / "bert")), weights=None)
    if kind == "gru":
        return tiny_gru()
    if kind == "glyphs":
        return glyphs(weights=None)
    name = {"torchvision": "squeezenet1_1", "timm": "convnextv2_atto"}[kind]
    return import_module(f"thaw.models.{kind}").__dict__[kind](name, None, image_size_px=64)


FOLDERS = ("timm", "huggingface")
"""Formats of libraries that take only heads of their own: see tests/exporting/test_library_folders.py."""
HEADS = [
    ("torchvision", "mlp", "safetensors"),
    *(
        pytest.param(kind, head, form, marks=pytest.mark.contract)
        for kind in ("torchvision", "timm", "glyphs", "bert", "gru")
        for head in ("mlp", "own")
        for form in FORMATS
        if form not in FOLDERS
    ),
]


@pytest.mark.run
@pytest.mark.parametrize(("kind", "head", "form"), HEADS)
def test_heads_of_two_layers_and_of_one_s_own_survive_every_format(
    kind: str, head: str, form: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime" if form == "onnx" else "torch")
    backbone = new_backbone(kind, tmp_path)
    make_head = {"mlp": partial(mlp, hidden_size=7, dropout=0.2), "own": partial(TwoScales, scale=3.0)}[head]
    network = Network(backbone, make_head(backbone.num_features, 3))
    code = f"tests.tiny.TwoScales({backbone.num_features}, 3, scale=3.0)" if head == "own" else ""
    model = InferenceModel(network, backbone, SingleLabel(3), ["blue", "green", "red"], code)
    file = write(model, form, tmp_path)
    samples = TEXTS if kind in ("bert", "gru") else [str(file) for file in odd_images(tmp_path / "zoo")]
    assert verify.require_agreement(model, form, file, samples)[1] <= 1e-5


@pytest.mark.parametrize(("pad_id", "pad_token"), [(0, "[PAD]"), (4, None)])
def test_transformers_and_thaw_read_the_tokens_and_names_of_a_hugging_face_export(
    tmp_path: Path, pad_id: int, pad_token: str | None
) -> None:
    transformers = pytest.importorskip("transformers")
    before = pretrained(tmp_path / "bert", pad_token_id=pad_id, id2label={0: "NEGATIVE", 1: "POSITIVE"})
    backbone, class_names = huggingface(str(before)), ["나쁨", "good", "odd"]
    network = Network(backbone, linear(backbone.num_features, 3, dropout=0.0))
    model = InferenceModel(network, backbone, SingleLabel(3), class_names)
    (tmp_path / "export").mkdir()
    file = write(model, "safetensors", tmp_path / "export")
    folder = str(file.parent)

    configuration = transformers.AutoConfig.from_pretrained(folder)
    assert configuration.id2label == dict(enumerate(class_names))
    assert [configuration.label2id[name] for name in class_names] == [0, 1, 2]
    text = "정말 재미있다 the thethe Great"  # `the`, an ordinary word, does not become special by being padding
    (expected,) = tokenise([text], backbone.input_spec).batch([0])["input_ids"].tolist()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = tokenizer(text, truncation=True)["input_ids"]
    assert found == expected[: len(found)]
    assert expected[len(found) :] == [pad_id] * (len(expected) - len(found))
    assert (tokenizer.pad_token, tokenizer.model_max_length) == (pad_token, 40)

    again = huggingface(folder)
    assert tokenise([text], again.input_spec).batch([0])["input_ids"].tolist() == [expected]
    assert (again.input_spec.pad_id, again.input_spec.max_length_tokens) == (pad_id, 40)
    assert read_class_names(file) == class_names


@pytest.mark.contract
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("torchvision", "squeezenet1_1"),  # a head of convolutions
        ("torchvision", "densenet121"),
        ("torchvision", "googlenet"),  # rescales its input
        ("torchvision", "vit_b_32"),  # a position table
        ("torchvision", "swin_t"),
        ("timm", "mobilenetv2_035"),
        ("timm", "convnextv2_atto"),
        ("timm", "vit_tiny_patch16_224"),
    ],
)
def test_networks_of_every_kind_are_exported(library: str, name: str, form: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime" if form == "onnx" else "torch")
    pytest.importorskip(library)
    build_backbone = import_module(f"thaw.models.{library}").__dict__[library]
    backbone = build_backbone(name, None, image_size_px=64)
    network = Network(backbone, linear(backbone.num_features, 3, dropout=0.5))
    model = InferenceModel(network, backbone, SingleLabel(3), ["blue", "green", "red"])
    if form in FOLDERS and library == "torchvision":
        with pytest.raises(ValueError, match=f"format={form} is for networks of .*: type format=safetensors"):
            write(model, form, tmp_path)
        return
    file = write(model, form, tmp_path)
    assert verify.require_agreement(model, form, file, [str(file) for file in odd_images(tmp_path / "zoo")])[1] <= 1e-5
    assert len(loading_code(model, form, file)) <= 5
