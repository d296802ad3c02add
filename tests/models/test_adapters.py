"""What the adapters of torchvision and timm do around a network: weights, names, input."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from thaw.errors import UserError
from thaw.models.torchvision import torchvision
from thaw.types import ImageSpec


def saved(folder: Path, network: torch.nn.Module, prefix: str = "") -> Path:
    torch.save({"state_dict": {prefix + k: v for k, v in network.state_dict().items()}}, folder / "weights.pth")
    return folder / "weights.pth"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_the_library_fills_the_backbone_and_its_head_is_left(
    tmp_path: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    own = models.resnet18(num_classes=7).eval()
    backbone = torchvision("resnet18", saved(tmp_path, own, prefix), image_size_px=32)
    own.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(backbone.network.eval()(x), own(x))
    assert "120 tensors matched, 0 missing, 2 surplus (fc.weight, fc.bias)" in caplog.text


def test_position_tables_follow_the_image_size(tmp_path: Path) -> None:
    file = saved(tmp_path, models.vit_b_32())
    backbone = torchvision("vit_b_32", file, image_size_px=64)
    assert backbone.network(torch.randn(1, 3, 64, 64)).shape == (1, 768)
    assert backbone.network.encoder.pos_embedding.shape == (1, 5, 768)


def test_other_networks_unknown_names_and_granularities_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, models.resnet34())
    with pytest.raises(UserError, match=r"is of another network: .*\n.*missing in it"):
        torchvision("resnet50", file)
    with pytest.raises(UserError, match=r"no classification network 'resnet19'\. Similar names: resnet18"):
        torchvision("resnet19", None)
    with pytest.raises(UserError, match="granularity is stages or blocks, not 'layers'"):
        torchvision("resnet18", None, granularity="layers")


def test_weights_that_cannot_be_downloaded_are_named_with_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"resnet18-\w+.pth and put it at .*hub/checkpoints/resnet18-\w+.pth, or type"):
        torchvision("resnet18")


def downloads(monkeypatch: pytest.MonkeyPatch, filled: float) -> list[str]:
    """In place of torchvision's downloads: tensors of one number. Gives the names of what was asked for."""
    asked: list[str] = []

    def get_state_dict(self: models.WeightsEnum, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
        asked.append(str(self))
        return {name: torch.full_like(x, filled) for name, x in models.resnet50().state_dict().items()}

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", get_state_dict)
    return asked


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("IMAGENET1K_V1", "V1"),
        ("ResNet50_Weights.IMAGENET1K_V2", "V2"),
        *((typed, "V2") for typed in ("default", "DEFAULT", "pretrained", True)),
    ],
)
def test_torchvision_s_weights_go_by_their_names(monkeypatch: pytest.MonkeyPatch, typed: object, meant: str) -> None:
    asked = downloads(monkeypatch, 0.25)
    backbone = torchvision("resnet50", typed)  # type: ignore[arg-type]
    assert set(asked) == {f"ResNet50_Weights.IMAGENET1K_{meant}"}
    assert (backbone.network.state_dict()["conv1.weight"] == 0.25).all()
    assert backbone.input_spec.resize_px == {"V1": 256, "V2": 232}[meant]  # type: ignore[union-attr]


def test_an_input_that_a_run_recorded_makes_the_network_that_it_had() -> None:
    spec = models.ViT_B_32_Weights.DEFAULT.transforms()
    recorded = ImageSpec(64, 3, tuple(spec.mean), tuple(spec.std))
    backbone = torchvision("vit_b_32", None, input_spec=recorded)
    assert backbone.input_spec == recorded
    assert backbone.network.encoder.pos_embedding.shape == (1, 5, 768)
    pytest.importorskip("timm")
    from thaw.models.timm import timm

    assert timm("vit_tiny_patch16_224", None, input_spec=recorded).network.pos_embed.shape == (1, 17, 192)


def test_names_of_weights_that_there_are_not_are_met_with_those_there_are() -> None:
    pytest.importorskip("timm")
    from thaw.models.timm import timm

    for name in ("IMAGENET1K_V3", "ResNet18_Weights.IMAGENET1K_V1", "hf-hub:timm/resnet50.a1_in1k"):
        with pytest.raises(
            UserError, match=rf"weights={name}: torchvision has IMAGENET1K_V1, IMAGENET1K_V2 for resnet50"
        ):
            torchvision("resnet50", name)
    with pytest.raises(UserError, match=r"weights=IMAGENET1K_V2: timm has resnet18.a1_in1k, .* for resnet18; default"):
        timm("resnet18", "IMAGENET1K_V2")
    with pytest.raises(UserError, match=r"gone.bin is not a file: name a .*or .bin file"):
        timm("resnet18", "gone.bin")


@pytest.mark.parametrize(
    ("name", "weights", "loaded"),
    [
        ("resnet18", "a1_in1k", "timm/resnet18.a1_in1k"),
        ("resnet18.a1_in1k", "a2_in1k", "timm/resnet18.a2_in1k"),
        ("resnet18", "resnet18.a3_in1k", "timm/resnet18.a3_in1k"),
        ("resnet18", "hf-hub:timm/resnet18.a2_in1k", "timm/resnet18.a2_in1k"),
        ("resnet18", "hf-hub:someone/theirs", "someone/theirs"),
        ("hf-hub:timm/resnet18.a1_in1k", "default", "timm/resnet18.a1_in1k"),
        ("timm/resnet18.a1_in1k", "pretrained", "timm/resnet18.a1_in1k"),
    ],
)
def test_timm_s_weights_go_by_tag_and_hub_id(
    monkeypatch: pytest.MonkeyPatch, name: str, weights: str, loaded: str
) -> None:
    library = pytest.importorskip("timm")
    from thaw.models.timm import timm

    asked: list[str] = []

    def from_hub(model_id: str, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
        asked.append(model_id)
        return {key: torch.full_like(x, 0.25) for key, x in library.create_model("resnet18").state_dict().items()}

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", from_hub)
    backbone = timm(name, weights)
    assert asked == [loaded]
    assert (backbone.network.state_dict()["conv1.weight"] == 0.25).all()


def test_a_bin_file_is_one_of_weights(tmp_path: Path) -> None:
    own = models.resnet18()
    torch.save(own.state_dict(), tmp_path / "pytorch_model.bin")
    backbone = torchvision("resnet18", tmp_path / "pytorch_model.bin")
    assert torch.equal(backbone.network.state_dict()["conv1.weight"], own.conv1.weight)


def test_timm_weights_that_cannot_be_had_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from thaw.models.timm import timm

    def offline(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no route")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(
        UserError, match=r"model.safetensors of https://.*timm/resnet18.* and type backbone.weights=<file>"
    ):
        timm("resnet18")
    with pytest.raises(UserError, match="timm has no weights for mobilenetv2_035: name others of mobilenetv2_050"):
        timm("mobilenetv2_035")
    with pytest.raises(UserError, match=r"timm has no network 'resnet_18'\. Similar names: resnet18"):
        timm("resnet_18")


def test_timm_takes_files_and_other_sizes(tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    from thaw.models.timm import timm

    file = tmp_path / "vit.safetensors"
    save_file(library.create_model("vit_tiny_patch16_224").state_dict(), file)
    backbone = timm("vit_tiny_patch16_224", file, image_size_px=64, mean=[0.1, 0.2, 0.3])
    assert backbone.input_spec.size_px == 64
    assert backbone.input_spec.mean == (0.1, 0.2, 0.3)
    assert backbone.network(torch.randn(1, 3, 64, 64)).shape == (1, 192)
    assert backbone.network.pos_embed.shape == (1, 17, 192)


def test_the_input_is_the_one_that_the_weights_were_trained_with() -> None:
    spec = torchvision("efficientnet_b3", None).input_spec
    assert (spec.size_px, spec.resize_px, spec.interpolation) == (300, 320, "bicubic")
    assert spec.mean == (0.485, 0.456, 0.406)
    with pytest.raises(UserError, match=r"mean \[0.5\] and std .* have one number for each channel"):
        torchvision("resnet18", None, mean=[0.5])
    with pytest.raises(UserError, match=r"crop_ratio is above 0 and at most 1, not 2\.0"):
        ImageSpec(32, 3, (0.0,) * 3, (1.0,) * 3, crop_ratio=2.0)


@pytest.mark.parametrize("key", ["model_state_dict", "net", None])
@pytest.mark.parametrize("prefix", ["model.", "encoder.backbone."])
def test_files_of_other_programs_load(tmp_path: Path, key: str | None, prefix: str) -> None:
    own = {prefix + name: value for name, value in models.squeezenet1_1().state_dict().items()}
    beside = {"epoch": 3, "optimizer": {}, "best": torch.tensor(71.0)}
    torch.save(own if key is None else {**beside, key: own}, tmp_path / "other.pth")
    backbone = torchvision("squeezenet1_1", tmp_path / "other.pth", image_size_px=32)
    assert torch.equal(backbone.network.state_dict()["features.0.weight"], own[f"{prefix}features.0.weight"])
    torch.save({"epoch": 3, "mine": {"a": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds epoch, mine, and no tensors by name"):
        torchvision("squeezenet1_1", tmp_path / "other.pth")


def test_prefixes_go_before_a_library_renames(tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    from thaw.models.timm import timm

    for name, build, own in (
        ("vit_b_32", torchvision, models.vit_b_32()),
        ("convnextv2_atto", timm, library.create_model("convnextv2_atto")),
    ):
        torch.save({f"model.{key}": value for key, value in own.state_dict().items()}, tmp_path / "weights.pth")
        assert build(name, tmp_path / "weights.pth", image_size_px=64).input_spec.size_px == 64


def test_layers_called_head_in_a_library_must_be_filled(tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    from thaw.models.timm import timm

    weights = {k: v for k, v in library.create_model("convnextv2_atto").state_dict().items() if k != "head.norm.weight"}
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"of another network[\s\S]*missing in it: head.norm.weight"):
        timm("convnextv2_atto", tmp_path / "weights.safetensors", image_size_px=32)


def test_sizes_and_options_that_do_not_fit_are_named(tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    from thaw.models.timm import timm

    with pytest.raises(UserError, match=r"does not take images of 50 x 50 pixels.*type backbone.image_size_px="):
        torchvision("alexnet", None, image_size_px=50)
    for name, size_px in (("vit_b_32", 50), ("maxvit_t", 100)):
        with pytest.raises(
            UserError, match=rf"{name} does not take images of {size_px} x {size_px} .*image_size_px=224"
        ):
            torchvision(name, None, image_size_px=size_px)
    with pytest.raises(UserError, match=r"backbone.image_size_px=50 .*for xcit_nano_12_p16_224: .*evenly"):
        timm("xcit_nano_12_p16_224", None, image_size_px=50)
    for build in (torchvision, timm):
        for size in (0, -3, 1.5, [224, 224], "large"):
            with pytest.raises(UserError, match=r"size_px is a whole number from 1 on .images are square., not "):
                build("resnet18", None, image_size_px=size)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"no .*network 'None'"):
            build(None, None)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"backbone.options=wide is no mapping"):
            build("resnet18", None, options="wide")  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"num_classes cannot be set: the data say it"):
            build("resnet18", None, options={"num_classes": 3})
    with pytest.raises(UserError, match=r"image_size cannot be set: type backbone.image_size_px="):
        torchvision("vit_b_32", None, options={"image_size": 64})
    with pytest.raises(UserError, match=r"backbone.options for resnet18: .*wide"):
        torchvision("resnet18", None, options={"wide": 2})
    with pytest.raises(UserError, match=r"backbone.options for resnet18: .*wide"):
        timm("resnet18", None, options={"wide": 2})
    with pytest.raises(UserError, match=r"The tags there are: resnet18\.a1_in1k"):
        timm("resnet18.mine")
    torch.save(models.resnet18().state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match="is of another network"):
        torchvision("vit_b_32", tmp_path / "resnet.pth")
    grey = timm("mobilenetv3_small_050", None, options={"in_chans": 1}, image_size_px=32)
    assert (grey.input_spec.channels, len(grey.input_spec.mean)) == (1, 1)
    assert timm("vit_tiny_patch16_224", None, options={"img_size": 64}).input_spec.size_px == 64
    assert library.create_model("vit_tiny_patch16_224").pretrained_cfg["crop_pct"] == 0.9
    assert timm("vit_tiny_patch16_224", None).input_spec.resize_px == 248, "cut off, not rounded, as timm does"
