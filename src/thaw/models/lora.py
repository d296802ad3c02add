"""Low-rank adapters (LoRA, Hu et al. 2021) in any network, by peft (`pip install -e ".[peft]"`)."""

import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import safetensors.torch
from torch import nn

from thaw.errors import UserError
from thaw.models.backbone import Backbone
from thaw.models.network import Network
from thaw.models.shapes import called_modules
from thaw.models.stages import Stages
from thaw.patterns import chosen, matches

NAME = "default"
"""What peft calls an adapter that nobody has named."""


@dataclass(frozen=True)
class Lora:
    """Adapters that peft has put into the network of a backbone."""

    plain: Backbone
    """The backbone without adapters; its network holds them until `merge`."""
    pretrained: frozenset[str]
    """Names of the parameters that never train."""

    def merge(self) -> Backbone:
        """Add each adapter's product to the weights of its layer, and put the layer back into its place."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        network = self.plain.network
        for path, module in list(network.named_modules()):
            if isinstance(module, BaseTunerLayer):
                module.merge()
                network.set_submodule(path, module.get_base_layer())
        del network.peft_config
        network.requires_grad_(True)  # as it came
        return self.plain

    def files(self) -> dict[str, bytes]:
        """The folder that `peft.PeftModel.from_pretrained(network, folder)` loads."""
        from peft import get_peft_model_state_dict

        network: Any = self.plain.network
        tensors = get_peft_model_state_dict(network, adapter_name=NAME, save_embedding_layers=False)
        named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
        settings = {**network.peft_config[NAME].to_dict(), "inference_mode": True}
        return {
            "adapter_model.safetensors": safetensors.torch.save(named, {"format": "pt"}),
            "adapter_config.json": json.dumps(settings, indent=2, default=sorted).encode(),
        }


def lora(backbone: Backbone, rank: int, alpha: float, dropout: float, targets: Sequence[str] | None = None) -> Backbone:
    """Put adapters into layers of a backbone, in place; they change nothing until they are trained.

    Args:
        backbone: the pretrained backbone.
        rank: rank of the matrix that is added to the weights of a layer.
        alpha: that matrix is scaled by `alpha` / `rank`.
        dropout: probability of dropout in front of each adapter.
        targets: patterns of the layers, by stage (`layer1*`) or by `stage.path` (`*.query`); `!pattern` excludes. None:
            all linear layers, or all convolutions where there are none.

    Raises:
        UserError: peft is not installed, the backbone has adapters already, or a pattern matches no layer.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError('adapter=lora needs peft: type pip install -e ".[peft]"') from error
    network, layers = backbone.network, _layers(backbone)
    paths = sorted(layers[address] for address in _targets(backbone, layers, targets))
    scale: Any = alpha  # peft only divides it by the rank
    config = peft.LoraConfig(
        r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules="|".join(map(re.escape, paths))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the transposed weights of GPT-2, which it then sees itself
        peft.inject_adapter_in_model(config, network, NAME)
    pretrained = frozenset(name for name, parameter in network.named_parameters() if not parameter.requires_grad)
    return replace(backbone, stages=_stages(backbone), kind="adapter", adapter=Lora(backbone, pretrained))


def _layers(backbone: Backbone) -> dict[str, str]:
    """Paths of the layers that peft can adapt, by `stage.path`, input to output.

    Only those that the network calls: of others, such as the projections in torch's attention, its code uses the
    weights alone, so that an adapter would do nothing. Not grouped convolutions, which peft cannot merge.
    """
    stage_of = {name: stage for stage, names in backbone.stages.items() for name in names}
    called = called_modules(Network(backbone, nn.Identity()), backbone.input_spec)
    return {
        f"{stage_of[f'{path}.weight']}.{path}": path
        for path, module in backbone.network.named_modules()
        if f"backbone.{path}" in called and f"{path}.weight" in stage_of
        if _is_linear(module) or (type(module) is nn.Conv2d and module.groups == 1)
    }


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, of torch or as GPT-2 has them."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _targets(backbone: Backbone, layers: Mapping[str, str], patterns: Sequence[str] | None) -> Collection[str]:
    """The layers, by `stage.path`, that get adapters. Raises UserError if there are none."""
    if patterns is None:
        linear = [address for address, path in layers.items() if _is_linear(backbone.network.get_submodule(path))]
        targets: Collection[str] = linear or list(layers)
        stray = []
    else:
        by_stage: dict[str, list[str]] = {stage: [] for stage in backbone.stages}
        for address, path in layers.items():
            by_stage[address.removesuffix(f".{path}")].append(address)
        stray = [pattern for pattern in patterns if not matches(by_stage, [pattern.removeprefix("!")])]
        targets = chosen(by_stage, patterns)
    if stray or not targets:
        words = f"nothing matches {', '.join(map(repr, stray))}" if stray else "no layer is left"
        some = [*layers][:3] + [*layers][-3:] if len(layers) > 6 else [*layers]
        raise UserError(
            f"adapter.targets: {words}. Patterns match stages ({', '.join(backbone.stages)}) and linear and "
            f"convolutional layers by stage and path: {', '.join(some) or 'this network calls none'}"
        )
    return targets


def _stages(backbone: Backbone) -> Stages:
    """Stages of the network with adapters: these are in the stages of their layers."""
    stage_of = {name: stage for stage, names in backbone.stages.items() for name in names}
    stages: dict[str, list[str]] = {stage: [] for stage in backbone.stages}
    for name, _ in backbone.network.named_parameters():
        layer = re.split(r"\.(?:base_layer|lora_A|lora_B)\.", name)[0]
        stages[stage_of.get(name) or stage_of[f"{layer}.weight"]].append(name)
    return stages
