"""`freezing=bitfit` and `freezing=norms` on networks that call their biases and norms by different names."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests import tiny
from tests.models.test_lora import attention, hugging_face, of_timm
from thaw.config import build
from thaw.errors import UserError
from thaw.models.backbone import Backbone
from thaw.models.heads import linear
from thaw.models.network import Network

Config = Callable[..., DictConfig]
NETWORKS: dict[str, Callable[[Path], Backbone]] = {
    "bert": hugging_face("bert"),  # LayerNorm
    "gpt2": hugging_face("gpt2"),  # ln_1
    "llama": hugging_face("llama"),  # no biases
    "vit": of_timm("vit_tiny_patch16_224", depth=2),
    "swin": of_timm("swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=12, num_heads=(1, 1), window_size=2),
    "batchnorm": lambda folder: tiny.backbone(),  # a number
    "attention": attention,  # in_proj_bias, and no norms
}


def trained(cfg: DictConfig, network: Network) -> set[str]:
    (own,) = build.plan(cfg, network).trained_in
    return {name.removeprefix("backbone.") for name, address in network.addresses.items() if address in own}


@pytest.mark.parametrize("kind", NETWORKS)
def test_biases_and_norms_train_beside_the_head_or_are_missed(kind: str, config: Config, tmp_path: Path) -> None:
    backbone = NETWORKS[kind](tmp_path)
    network = Network(backbone, linear(backbone.num_features, 3))
    head = {"head.weight", "head.bias"}
    names = {name for name, _ in backbone.network.named_parameters()}
    norms = {
        f"{path}.{name}"
        for path, module in backbone.network.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
    }
    wanted = {"bitfit": {name for name in names if name.endswith(("bias",))}, "norms": norms}
    for plan, own in wanted.items():
        cfg = config(f"freezing={plan}")
        if own:
            assert trained(cfg, network) == own | head
        else:
            with pytest.raises(UserError, match=r"nothing matches '\*(\[\._\]bias|norm\*)'"):
                trained(cfg, network)
    assert bool(norms) == (kind != "attention")
    assert bool(wanted["bitfit"]) == (kind != "llama")
