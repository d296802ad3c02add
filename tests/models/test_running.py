"""Activations that are computed again, and compiled backbones: the same gradients, whatever trains."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch.distributions import Distribution

from tests import tiny
from tests.conftest import NOISE, TINY
from tests.language import pretrained
from tests.models.test_lora import of_timm, sample
from thaw.caching.cut import cut
from thaw.errors import UserError
from thaw.finetuning.freezing import freeze_all_but
from thaw.models.backbone import Backbone
from thaw.models.heads import linear
from thaw.models.lora import lora
from thaw.models.network import Network
from thaw.models.running import checkpoint_gradients, compile_backbone
from thaw.models.weights import read_weights
from thaw.train import train

Config = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def distributions_judge_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes that from all of torch's distributions, for good: other tests want an error of theirs."""
    monkeypatch.setattr(Distribution, "_validate_args", Distribution._validate_args)


def gradients(network: Network, inputs: object, trained: list[str]) -> dict[str, torch.Tensor | None]:
    """Of one step in which some stages train; dropout draws the same in each."""
    addresses = network.stage_addresses()
    freeze_all_but(network, frozenset(address for stage in trained for address in addresses[stage]))
    network.zero_grad()
    torch.manual_seed(0)
    network(inputs).square().sum().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def require_equal_steps(network: Network, plain: Network, backbone: Backbone) -> None:
    """One step in each of two phases, there and back."""
    stages, inputs = list(network.stages), sample(backbone)
    for trained in (stages[-2:], [stage for stage, own in network.stage_addresses().items() if own], stages[-2:]):
        ours, theirs = (gradients(one, inputs, trained) for one in (network, plain))
        assert {name for name, own in ours.items() if own is not None} == {
            name for name, own in theirs.items() if own is not None
        }
        for name, own in ours.items():
            if own is not None:
                assert own.any() or ".lora_A." in name  # of an adapter that has learnt nothing yet
                assert torch.allclose(own, theirs[name], atol=1e-6), (trained, name)


def bert(folder: Path) -> Backbone:
    from thaw.models.huggingface import huggingface

    return huggingface(str(pretrained(folder / "bert")))


@pytest.mark.parametrize("kind", ["bert", "vit", "bert with adapters"])
def test_activations_that_are_computed_again_give_the_same_gradients(kind: str, tmp_path: Path) -> None:
    backbone = of_timm("vit_tiny_patch16_224", depth=2)(tmp_path) if kind == "vit" else bert(tmp_path)
    if "adapters" in kind:
        pytest.importorskip("peft")
        backbone = lora(backbone, 2, 4, 0.1)
    plain = Network(backbone, linear(backbone.num_features, 3))
    network = deepcopy(plain)
    checkpoint_gradients(network)
    calls = []
    layer = network.get_submodule(network.stages[list(network.stages)[-2]].modules[0])
    part = next(module for module in layer.modules() if not any(module.children()))
    part.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    require_equal_steps(network, plain, backbone)
    assert len(calls) == 6, "each step runs the layer twice"
    # What the cache would enter behind has no forward of its own then.
    assert cut(plain, backbone.input_spec, 2) is not None
    assert cut(network, backbone.input_spec, 2) is None


def test_a_compiled_backbone_has_the_same_gradients_after_each_change_of_phase() -> None:
    backbone = tiny.backbone()
    plain = Network(backbone, linear(16, 3))
    network = deepcopy(plain)
    compiled = []

    def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        compiled.append(graph)
        return graph

    torch._dynamo.register_backend(counting, name="counting")
    compile_backbone(network, "counting")
    require_equal_steps(network, plain, backbone)
    assert compiled
    assert cut(network, backbone.input_spec, 2) is None
    with pytest.raises(UserError, match=r"compile_backend=fast is none of .*eager"):
        compile_backbone(network, "fast")


@pytest.mark.run
def test_a_compiled_run_ends_with_the_same_weights(config: Config, tmp_path: Path) -> None:
    phases = "freezing.phases=[{epochs: 1, train: [layer2, head]}, {epochs: 1, train: ['*']}]"
    same = [*TINY, *NOISE, "freezing=phases", phases]
    train(config(*same, f"run_folder={tmp_path}/plain"))
    train(config(*same, "compile=true", "compile_backend=aot_eager", f"run_folder={tmp_path}/compiled"))
    plain, compiled = (read_weights(tmp_path / name / "weights.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(tensor, compiled[name], atol=1e-5) for name, tensor in plain.items())


def test_networks_that_cannot_compute_activations_again_are_refused() -> None:
    with pytest.raises(UserError, match=r"Sequential cannot .*no network of timm or Hugging Face.*smaller data"):
        checkpoint_gradients(Network(tiny.backbone(), linear(16, 3)))
