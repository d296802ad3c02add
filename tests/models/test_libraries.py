"""One contract for networks of every library: all families of torchvision, forty of timm, sixteen of Hugging Face."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from tests.language import NETWORKS, pretrained
from thaw.caching.cut import cut
from thaw.caching.graph_cut import image_cuts
from thaw.caching.halves import Cut
from thaw.caching.layer_cut import text_cuts
from thaw.finetuning.freezing import freeze_all_but
from thaw.finetuning.phase import Plan
from thaw.finetuning.plans import gradual
from thaw.models.backbone import Backbone
from thaw.models.heads import linear
from thaw.models.network import Network
from thaw.models.torchvision import torchvision
from thaw.types import ImageSpec, TokenSpec

TORCHVISION = {  # the smallest of each family, and the smallest input that it takes
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11_bn": 32,
    "vit_b_32": 32,
}
TIMM = {
    "beit_base_patch16_224": 32,
    "cait_xxs24_224": 32,
    "coat_lite_tiny": 32,
    "convnextv2_atto": 32,
    "crossvit_tiny_240": 240,
    "cs3darknet_s": 32,
    "deit_tiny_patch16_224": 32,
    "densenet121": 32,
    "dla34": 32,
    "dpn48b": 32,
    "edgenext_xx_small": 64,
    "efficientformer_l1": 224,
    "efficientnet_b0": 32,
    "eva02_tiny_patch14_224": 28,
    "fastvit_t8": 64,
    "focalnet_tiny_srf": 32,
    "gcvit_xxtiny": 224,
    "ghostnet_050": 32,
    "hrnet_w18_small": 64,
    "inception_next_atto": 32,
    "lcnet_050": 32,
    "levit_128s": 224,
    "maxvit_rmlp_pico_rw_256": 256,
    "mixer_s32_224": 224,
    "mobilenetv2_035": 32,
    "mobilenetv3_small_050": 32,
    "mobilenetv4_conv_small_050": 32,
    "mobilevit_xxs": 64,
    "nfnet_l0": 32,
    "pit_ti_224": 224,
    "poolformer_s12": 32,
    "pvt_v2_b0": 32,
    "regnetx_002": 32,
    "repvgg_a0": 32,
    "res2net50_14w_8s": 32,
    "resnet26d": 32,
    "swin_tiny_patch4_window7_224": 224,
    "twins_pcpvt_small": 64,
    "vit_small_patch16_dinov3": 32,
    "vit_tiny_patch16_224": 32,
    "xcit_nano_12_p16_224": 32,
}
NOT_CUT = {
    *("coat_lite_tiny", "crossvit_tiny_240", "ghostnet_050", "hrnet_w18_small", "twins_pcpvt_small"),
    "vit_small_patch16_dinov3",
}
"""Networks that torch.fx cannot follow, or that hand on several tensors: they have stages, but no cut inside."""
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
QUICK = ("resnet18", "mobilenet_v2", "squeezenet1_1", "mobilenetv2_035", "vit_tiny_patch16_224", "bert")
TORCHVISION_STAGES = {
    "resnet18": "stem layer1 layer2 layer3 layer4",
    "densenet121": "stem denseblock1 transition1 denseblock2 transition2 denseblock3 transition3 denseblock4",
    "regnet_x_400mf": "stem block1 block2 block3 block4",
    "vit_b_32": "stem " + " ".join(f"encoder_layer_{i}" for i in range(12)),
    "convnext_tiny": "stem " + " ".join(f"features{i}" for i in range(1, 8)),
    "mobilenet_v3_small": "stem " + " ".join(f"features{i}" for i in range(1, 13)) + " classifier0",
    "swin_t": "stem features1 features2 features3 features4 features5 features6 features7",
}
TIMM_STAGES = {
    "densenet121": "stem denseblock1 denseblock2 denseblock3 denseblock4",
    "swin_tiny_patch4_window7_224": "stem layers0 layers1 layers2 layers3",
    "convnextv2_atto": "stem stages0 stages1 stages2 stages3",
    "mobilenetv2_035": "stem blocks0 blocks1 blocks2 blocks3 blocks4 blocks5 blocks6",
    "vit_tiny_patch16_224": "stem " + " ".join(f"blocks{i}" for i in range(12)),
    "hrnet_w18_small": "stem layer1 stage2 stage3 stage4 incre_modules0",
    "twins_pcpvt_small": "stem blocks0 blocks1 blocks2 blocks3",
}


def families() -> set[str]:
    return {models.get_model_builder(name).__module__.split(".")[-1] for name in models.list_models(module=models)}


def test_every_family_of_torchvision_is_here() -> None:
    here = {models.get_model_builder(name).__module__.split(".")[-1] for name in TORCHVISION}
    assert here == families() >= {"resnet", "vision_transformer"}
    assert len(TIMM) >= 40
    assert len(NETWORKS) >= 16


def marked(names: Iterable[str]) -> list[Any]:
    """A few in the default tier, all of them in `make test-all`."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.contract) for name in names]


@pytest.mark.parametrize("granularity", ["stages", "blocks"])
@pytest.mark.parametrize("name", marked(TORCHVISION))
def test_torchvision(name: str, granularity: str) -> None:
    size_px = TORCHVISION[name]
    backbone = torchvision(name, None, granularity, image_size_px=size_px)
    options: dict[str, Any] = {"image_size": size_px} if name.startswith("vit") else {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "transform_input": True, "init_weights": False}
    library = models.get_model(name, **options)
    if name != "squeezenet1_1":  # its head is a convolution and a ReLU; thaw pools in front of it
        last = [path for path, module in library.named_modules() if isinstance(module, nn.Linear)][-1]
        library.set_submodule(last, nn.Identity())
    else:
        library.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    require_contract(backbone, library, images(backbone), name, cuts=True)
    if granularity == "stages" and name in TORCHVISION_STAGES:
        assert " ".join(backbone.stages) == TORCHVISION_STAGES[name]


@pytest.mark.parametrize("granularity", ["stages", "blocks"])
@pytest.mark.parametrize("name", marked(TIMM))
def test_timm(name: str, granularity: str) -> None:
    timm_library = pytest.importorskip("timm")
    from thaw.models.timm import timm

    backbone = timm(name, None, granularity, image_size_px=TIMM[name])
    sized = timm_library.get_pretrained_cfg(name).fixed_input_size
    library = timm_library.create_model(name, num_classes=0, **({"img_size": TIMM[name]} if sized else {}))
    require_contract(backbone, library, images(backbone), name, cuts=name not in NOT_CUT)
    if granularity == "stages" and name in TIMM_STAGES:
        assert " ".join(backbone.stages) == TIMM_STAGES[name]


@pytest.mark.parametrize("name", marked(NETWORKS))
def test_huggingface(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from thaw.models.huggingface import huggingface

    backbone = huggingface(str(pretrained(tmp_path, name)), pooling="last")
    library = transformers.AutoModel.from_pretrained(tmp_path)
    library.pooler = None
    ids = torch.randint(4, 32, (3, 16), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(16) < torch.tensor([9, 4, 1])[:, None]).long()
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    require_contract(backbone, library, inputs, name, cuts=name not in ("albert", "xlm", "flaubert", "longformer"))
    layers = ["layer0"] if name == "albert" else ["layer0", "layer1"]
    assert list(backbone.stages) == ["embeddings", *layers]


def images(backbone: Backbone) -> Tensor:
    spec = backbone.input_spec
    assert isinstance(spec, ImageSpec)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, spec.channels, spec.size_px, spec.size_px, generator=generator)


def all_cuts(network: Network, spec: ImageSpec | TokenSpec) -> list[Cut]:
    """Cuts in front of all stages from one trace; `cut` gives the first."""
    start = len(network.stages) - 2
    try:
        with torch.no_grad():
            cuts = image_cuts(network, spec, start) if isinstance(spec, ImageSpec) else text_cuts(network, spec, start)
            return list(cuts)
    except Exception:  # a network that cannot be followed
        return []
    finally:
        network.eval()


def require_contract(backbone: Backbone, library: nn.Module, inputs: Any, name: str, cuts: bool) -> None:
    torch.manual_seed(0)
    network = Network(backbone, linear(backbone.num_features, 3, dropout=0.0)).eval()
    parameters = dict(network.named_parameters())

    # Every parameter is in exactly one stage, and there are more than two stages.
    named = [parameter for stage in network.stages.values() for parameter in stage.parameters]
    assert sorted(named) == sorted(parameters)
    assert len(network.stages) > 2

    # The pattern `*norm*` matches the parameters of its normalisation layers and no others.
    norms = {
        f"{path}.{parameter}"
        for path, module in network.named_modules()
        for parameter, _ in module.named_parameters(recurse=False)
        if isinstance(module, NORMS) or type(module).__name__.endswith("Norm")
    }
    assert {name for name, address in network.addresses.items() if fnmatchcase(address, "*norm*")} == norms
    assert len({*network.addresses.values()}) == len(parameters)

    # The state dict loads into the library's own class, which then gives the same features, to the last bit.
    tensors = network.backbone.state_dict()
    assert {f"backbone.{key}" for key in tensors} == {
        key for key in network.state_dict() if not key.startswith("head.")
    }
    library.load_state_dict(tensors)
    library.eval()
    with torch.no_grad():
        features = network.features(inputs)
        assert features.shape == (len(features), backbone.num_features)
        states = network.backbone(**inputs).last_hidden_state if isinstance(inputs, Mapping) else features
        expected = library(**inputs).last_hidden_state if isinstance(inputs, Mapping) else library(inputs)
        assert torch.equal(states, expected)
        logits = network(inputs)
        assert torch.equal(network(features, start=len(network.stages) - 1), logits)

    # Every cut gives the same logits, to the last bit.
    cuts_found = all_cuts(network, backbone.input_spec)
    for halves in cuts_found:
        network.entries[halves.start] = halves.suffix
        with torch.no_grad():
            assert torch.equal(network(halves.prefix(inputs), start=halves.start), logits), f"behind {halves.start}"
    starts = [halves.start for halves in cuts_found]
    assert bool(starts) == cuts, f"{name} is cut in front of {starts}"
    last = cut(network, backbone.input_spec, len(network.stages) - 2)
    assert (None if last is None else last.start) == next(iter(starts), None)

    # `gradual` trains what it says: gradients and training mode there, and nowhere else.
    plan = Plan(gradual(list(network.stages), epochs_per_stage=1), network.stage_addresses())
    for epoch in (0, plan.total_epochs // 2, plan.total_epochs - 1):
        network.zero_grad()
        freeze_all_but(network, plan.trained(epoch))
        logits = network(inputs if isinstance(inputs, Mapping) else torch.cat([inputs, inputs]))
        (logits * torch.arange(1.0, 4.0)).square().sum().backward()
        for stage, content in network.stages.items():
            gradients = [parameters[parameter].grad for parameter in content.parameters]
            modes = {module.training for path in content.modules for module in network.get_submodule(path).modules()}
            if plan.trained(epoch).issuperset(network.stage_addresses()[stage]):
                assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients), stage
                assert modes <= {True}, stage
            else:
                assert all(gradient is None for gradient in gradients), stage
                assert modes <= {False}, stage
