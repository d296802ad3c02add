"""Folders for timm and for transformers load there, without thaw, and thaw takes them back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.data.zoo import odd_images
from tests.language import pretrained
from tests.models.test_gru import tiny as tiny_gru
from thaw.data.image_file import load_image
from thaw.data.transforms import evaluation_transform, normalise
from thaw.errors import UserError
from thaw.exporting.formats import FORMATS, loading_code, write
from thaw.exporting.inference import InferenceModel
from thaw.models.backbone import Backbone
from thaw.models.heads import linear, mlp
from thaw.models.huggingface import huggingface
from thaw.models.library_names import own_names
from thaw.models.network import Network
from thaw.models.timm import timm
from thaw.models.torchvision import torchvision
from thaw.models.weights import load_tensors, read_weights
from thaw.tasks.single_label import SingleLabel
from thaw.types import ImageSpec

CLASS_NAMES = ["나쁨", "good", "odd"]
WIDTH = 16
"""Of the networks of tests.language."""
TOKENS = {"input_ids": [[2, 7, 8, 9, 3], [2, 11, 3, 0, 0]], "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]}


def inference_model(backbone: Backbone, head: torch.nn.Module | None = None) -> InferenceModel:
    torch.manual_seed(1)
    network = Network(backbone, head or linear(backbone.num_features, 3, dropout=0.5))
    return InferenceModel(network, backbone, SingleLabel(3), CLASS_NAMES)


def alone(lines: list[str]) -> list[object]:
    """What lines print as JSON, in a process that cannot import thaw."""
    code = "\n".join(["import sys; sys.modules['thaw'] = None", "import json, torch", *lines])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", "{"))]


def small_timm(name: str = "mobilenetv2_035", weights: Path | None = None) -> Backbone:
    pytest.importorskip("timm")
    spec = {"image_size_px": 64, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    return timm(name, weights, **spec)  # type: ignore[arg-type]


@pytest.mark.run
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("mobilenetv2_035", "huggingface"),
        *(
            pytest.param(name, "timm", marks=pytest.mark.contract)
            for name in ("mobilenetv2_035", "vit_tiny_patch16_224")
        ),
    ],
)
def test_timm_and_transformers_load_a_timm_network(tmp_path: Path, name: str, form: str) -> None:
    pytest.importorskip("transformers")
    model = inference_model(small_timm(name))
    (tmp_path / "export").mkdir()
    file = write(model, form, tmp_path / "export")
    image = next(path for path in odd_images(tmp_path / "zoo") if load_image(path).mode == "RGB")
    load_image(image).save(tmp_path / "image.png")
    (build,) = (line for line in loading_code(model, "timm", file) if "create_model" in line)
    lines = [
        "import timm, transformers, PIL.Image",
        f"folder = {str(file.parent)!r}",
        "torch.manual_seed(0); images = torch.randn(2, 3, 64, 64)",
        build,
        "print(network(images).tolist())",
        "print(timm.create_model('local-dir:' + folder, pretrained=True).eval()(images).tolist())",
        "classifier = transformers.AutoModelForImageClassification.from_pretrained(folder)",
        "print(classifier(images).logits.tolist())",
        "print(json.dumps(classifier.config.id2label))",
        "processor = transformers.AutoImageProcessor.from_pretrained(folder)",
        f"print(processor(PIL.Image.open({str(tmp_path / 'image.png')!r}))['pixel_values'].tolist())",
    ]
    *logits, names, pixels = alone(lines)
    torch.manual_seed(0)
    with torch.inference_mode():
        expected = model.network(torch.randn(2, 3, 64, 64))
    for found in logits:
        assert torch.allclose(torch.tensor(found), expected, atol=1e-5)
    assert len(logits) == 3
    assert names == {str(number): name for number, name in enumerate(CLASS_NAMES)}
    spec = model.inputs.spec  # type: ignore[attr-defined]
    assert isinstance(spec, ImageSpec)
    transformed = normalise(evaluation_transform(spec)(load_image(image))[None], spec)
    assert torch.allclose(torch.tensor(pixels), transformed, atol=1e-5)


TANH, GELU, RELU = (("cls", mlp(WIDTH, 3, WIDTH, activation=name)) for name in ("tanh", "gelu", "relu"))
"""Heads that classes of transformers have: on the first token, a layer of the network's width, and another."""


@pytest.mark.run
@pytest.mark.parametrize(
    ("kind", "pooling", "head", "own_class"),
    [
        ("bert", "mean", None, None),
        ("bert", *TANH, "BertForSequenceClassification"),
        *(
            pytest.param(*case, marks=pytest.mark.contract)
            for case in (
                ("bert", "cls", None, None),
                ("llama", "last", None, None),
                ("longformer", "mean", None, None),
                ("roberta", *TANH, "RobertaForSequenceClassification"),
                ("electra", *GELU, "ElectraForSequenceClassification"),
                ("distilbert", *RELU, "DistilBertForSequenceClassification"),
            )
        ),
    ],
)
def test_transformers_loads_a_network_that_reads_texts(
    tmp_path: Path, kind: str, pooling: str, head: torch.nn.Module | None, own_class: str | None
) -> None:
    before = pretrained(tmp_path / kind, kind)
    model = inference_model(huggingface(str(before), pooling=pooling), head)
    (tmp_path / "export").mkdir()
    file = write(model, "huggingface", tmp_path / "export")
    code = loading_code(model, "huggingface", file)
    assert ("trust_remote_code=True" in code[-1]) == file.with_name("pooled_classifier.py").exists() == (not own_class)
    name, names, (found,) = alone(
        [
            *code,
            f"inputs = {{name: torch.tensor(rows) for name, rows in {TOKENS}.items()}}",
            "print(json.dumps([type(network).__name__]))",
            "print(json.dumps(network.config.id2label))",
            "print([network(**inputs).logits.tolist()])",
        ]
    )
    assert name == [own_class or "PooledClassifier"]
    assert names == {str(number): name for number, name in enumerate(CLASS_NAMES)}
    with torch.inference_mode():
        expected = model.network({name: torch.tensor(rows) for name, rows in TOKENS.items()})
    assert torch.allclose(torch.tensor(found), expected, atol=1e-5)


def test_nobody_loads_it_as_another_network(tmp_path: Path) -> None:
    model = inference_model(huggingface(str(pretrained(tmp_path / "bert"))))
    (tmp_path / "export").mkdir()
    folder = str(write(model, "huggingface", tmp_path / "export").parent)
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="custom code"):
        transformers.AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)


def test_what_does_not_fit_is_told_what_does(tmp_path: Path) -> None:
    texts = huggingface(str(pretrained(tmp_path / "bert")))
    photographs = torchvision("squeezenet1_1", None, image_size_px=64)
    for backbone, head, form, message in (
        (texts, mlp(WIDTH, 3, 7), "huggingface", r"one linear layer.*another: type format=safetensors or state_dict"),
        (small_timm(), mlp(1280, 3, 7), "timm", r"one linear layer.*another: type format=safetensors or state_dict"),
        (texts, None, "timm", r"is for networks of timm.*type format=safetensors"),
        (photographs, None, "huggingface", r"is for networks of Hugging Face and of timm: type format=safetensors"),
        (tiny_gru(), None, "huggingface", r"is for networks of Hugging Face and of timm: type format=safetensors"),
    ):
        with pytest.raises(UserError, match=message):
            write(inference_model(backbone, head), form, tmp_path)


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in ("onnx", "exported_program")])
def test_weights_are_taken_back(tmp_path: Path, form: str) -> None:
    if form == "timm":
        build = small_timm
    else:
        name = str(pretrained(tmp_path / "bert"))

        def build(weights: Path | None = None) -> Backbone:  # type: ignore[misc]
            return huggingface(name, weights)

    model = inference_model(build())
    torch.nn.init.normal_(next(model.network.backbone.parameters()))
    (tmp_path / "export").mkdir()
    folder = write(model, form, tmp_path / "export").parent
    expected = model.network.state_dict()
    backbone = build(weights=folder)
    assert all(
        torch.equal(value, expected[f"backbone.{name}"]) for name, value in backbone.network.state_dict().items()
    )

    fresh = build(weights=None)
    network = Network(fresh, linear(fresh.num_features, 3))
    report = load_tensors(network, own_names(read_weights(folder), network, fresh.recipe), form, optional="head.")
    assert report.missing == report.surplus == ()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_programs_give_no_weights(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"model.{suffix}").write_bytes(b"")
    for source in (tmp_path, tmp_path / f"model.{suffix}"):
        with pytest.raises(
            UserError, match=rf"weights cannot be taken from .*model.{suffix}: .*init_from=<run folder>"
        ):
            read_weights(source)
