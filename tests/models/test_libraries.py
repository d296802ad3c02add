"""One contract for every network of every library: torchvision's classification families, and twenty of timm's."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torchvision import models

from thaw.models.backbone import Backbone
from thaw.models.network import Network, new_head
from thaw.models.torchvision import torchvision

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
    "cait_xxs24_224": 32,
    "convnextv2_atto": 32,
    "cs3darknet_s": 32,
    "deit_tiny_patch16_224": 32,
    "densenet121": 32,
    "dla34": 32,
    "edgenext_xx_small": 64,
    "efficientnet_b0": 32,
    "eva02_tiny_patch14_224": 28,
    "fastvit_t8": 64,
    "ghostnet_050": 32,
    "lcnet_050": 32,
    "mixer_s32_224": 224,
    "mobilenetv2_035": 32,
    "mobilenetv3_small_050": 32,
    "mobilevit_xxs": 64,
    "poolformer_s12": 32,
    "regnetx_002": 32,
    "repvgg_a0": 32,
    "resnet26d": 32,
    "swin_tiny_patch4_window7_224": 224,
    "twins_pcpvt_small": 64,
    "vit_tiny_patch16_224": 32,
    "xcit_nano_12_p16_224": 32,
}
UNCUT = ("ghostnet_050", "twins_pcpvt_small")  # torch.fx cannot follow them: a single stage, with a warning
QUICK = ("resnet18", "mobilenet_v2", "squeezenet1_1", "vit_b_32", "mobilenetv2_035", "vit_tiny_patch16_224")
STAGES = {
    "resnet18": "stem layer1 layer2 layer3 layer4",
    "densenet121": "stem denseblock1 transition1 denseblock2 transition2 denseblock3 transition3 denseblock4",
    "regnet_x_400mf": "stem block1 block2 block3 block4",
    "vit_b_32": "embedding " + " ".join(f"encoder_layer_{i}" for i in range(12)),
    "convnext_tiny": "stem " + " ".join(f"features{i}" for i in range(1, 8)),
    "mobilenet_v3_small": "stem " + " ".join(f"features{i}" for i in range(1, 13)) + " classifier",
    "swin_tiny_patch4_window7_224": "embedding layers0 layers1 layers2 layers3",
    "swin_t": "embedding features1 features2 features3 features4 features5 features6 features7",
    "convnextv2_atto": "stem stages0 stages1 stages2 stages3",
    "mobilenetv2_035": "stem blocks0 blocks1 blocks2 blocks3 blocks4 blocks5 blocks6 conv_head",
    "vit_tiny_patch16_224": "embedding " + " ".join(f"blocks{i}" for i in range(12)),
}


def families() -> set[str]:
    return {models.get_model_builder(name).__module__.split(".")[-1] for name in models.list_models(module=models)}


def test_every_family_of_torchvision_is_here() -> None:
    here = {models.get_model_builder(name).__module__.split(".")[-1] for name in TORCHVISION}
    assert here == families() >= {"resnet", "vision_transformer"}


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
    require_contract(backbone, models.get_model(name, **options), head_of=last_layer)
    assert len(backbone.stages) > 2
    if granularity == "stages" and name in STAGES:
        assert " ".join(backbone.stages) == STAGES[name]


@pytest.mark.parametrize("name", marked(TIMM))
def test_timm(name: str) -> None:
    library = pytest.importorskip("timm")
    from thaw.models.timm import timm

    backbone = timm(name, None, image_size_px=TIMM[name], options=None)
    sized = library.get_pretrained_cfg(name).fixed_input_size
    own = library.create_model(name, num_classes=0, **({"img_size": TIMM[name]} if sized else {}))
    require_contract(backbone, own, head_of=None)
    assert list(backbone.stages) == ["body"] if name in UNCUT else len(backbone.stages) > 2
    if name in STAGES:
        assert " ".join(backbone.stages) == STAGES[name]


def require_contract(backbone: Backbone, own: nn.Module, head_of: Callable[[nn.Module, Tensor], Tensor] | None) -> None:
    torch.manual_seed(0)
    network = Network(backbone.stages, new_head(backbone.num_features, 3, dropout=0.0))
    stages, spec = network.stages, backbone.input_spec
    x = torch.randn(2, spec.channels, spec.size_px, spec.size_px)

    # Every parameter of the library's network is in one stage (Network refuses two), under the library's name.
    tensors = {
        name.split(".", 1)[1]: value for name, value in stages.state_dict().items() if not name.startswith("head.")
    }
    loaded = own.state_dict()
    loaded.update(tensors)
    own.load_state_dict(loaded, strict=False)
    names = {name for name, _ in own.named_parameters()}
    assert {name.split(".", 1)[1] for name, _ in stages.named_parameters()} - {"1.weight", "1.bias"} <= names
    assert len(names - tensors.keys()) <= (2 if head_of is not None else 0)

    # The same numbers, to the last bit.
    network.eval()
    own.eval()
    with torch.no_grad():
        features = x
        entering = []
        for stage in list(stages.values())[:-1]:
            entering.append(features)
            features = stage(features)
            assert isinstance(features, Tensor)
        assert features.shape == (2, backbone.num_features)
        if isinstance(own, models.SqueezeNet):  # it pools behind its head, a convolution and a ReLU; ours is behind
            assert torch.equal(features, adaptive_avg_pool2d(own.features(x), 1).flatten(1))
        else:
            assert torch.equal(features if head_of is None else head_of(own, features), own(x))
        logits = network(x)
        for k, activation in enumerate(entering):
            assert torch.equal(network(activation, start=k), logits)
        assert torch.equal(network(features, start=len(entering)), logits)

    # Gradients where it trains and none where it is frozen.
    middle = len(stages) // 2
    for k, stage in enumerate(stages.values()):
        stage.requires_grad_(k >= middle).train(k >= middle)
    network(torch.cat([x, x])).square().sum().backward()
    for k, (name, stage) in enumerate(stages.items()):
        gradients = [parameter.grad for parameter in stage.parameters()]
        if k < middle:
            assert all(gradient is None for gradient in gradients), name
        else:
            assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients), name


def last_layer(own: nn.Module, features: Tensor) -> Tensor:
    """What torchvision makes of the features: its own head."""
    return [part for part in own.modules() if isinstance(part, nn.Linear)][-1](features)
