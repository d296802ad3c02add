"""Every network, whatever library it came from: an untouched backbone and a new head, with named stages."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import Parameter

from thaw.errors import UserError
from thaw.models.backbone import Adapter, Backbone
from thaw.models.stages import Stage, with_modules
from thaw.types import TokenStates

HEAD = "head"
FSDP_WRAPPER = "_fsdp_wrapped_module."
"""FSDP inserts this into names of parameters."""


class Network(nn.Module):
    """`head(features(inputs))`, where the features come from the library's own forward.

    Names in the state dict are the library's below `backbone.`, and `head.*`.

    Raises:
        UserError: a parameter of the backbone is in no stage, or in two, or a stage is called `head`.
    """

    num_features: int
    """D, the width of the features."""
    stages: Mapping[str, Stage]
    """Parameters and modules of this network by stage, input to output; the last stage is `head`."""
    adapter: Adapter | None
    """What trains in place of the backbone's own parameters; None if these do."""
    addresses: Mapping[str, str]
    """By name in this network, the address by which plans know a parameter: `layer1.layer1.0.bn1.norm.weight`."""

    def __init__(self, backbone: Backbone, head: nn.Module):
        super().__init__()
        self.backbone, self.pool, self.head = backbone.network, backbone.pool, head
        self.num_features, self.adapter = backbone.num_features, backbone.adapter
        if HEAD in backbone.stages:
            raise UserError(f"a stage of the backbone is called '{HEAD}', as the new last stage is: name it otherwise")
        stages = {stage: [f"backbone.{name}" for name in names] for stage, names in backbone.stages.items()}
        stages[HEAD] = [f"head.{name}" for name, _ in head.named_parameters()]
        self.stages, self._stages_of_module = with_modules(self, stages)
        self.addresses = {
            name: _address(self, stage, name) for stage, content in self.stages.items() for name in content.parameters
        }
        self.keeps_statistics = False
        """Whether BatchNorm layers of the backbone keep their statistics also where their weights train."""
        self.is_whole = False
        """Whether only its own forward may run, in this process: it is not cut, nor run by loader processes."""
        self.entries: dict[int, Callable[[Any], Tensor]] = {}
        """By stage number: function from activations that enter there to features (B, D). The cache fills it."""

    def forward(self, inputs: Any, start: int = 0) -> Tensor:
        """Logits (B, C) of raw inputs, or of activations that enter at stage number `start`."""
        return self.head(self.features(inputs, start))

    def features(self, inputs: Any, start: int = 0) -> Tensor:
        """Features (B, D) of images (B, C, H, W), or of `input_ids`, `attention_mask` ..., each (B, T).

        With `start`, `inputs` are activations that enter at that stage; features themselves enter at the head.
        """
        if start:
            return inputs if start == len(self.stages) - 1 else self.entries[start](inputs)
        if self.pool is None:
            return self.backbone(inputs)
        return self.pool(TokenStates(self.backbone(**inputs).last_hidden_state, inputs["attention_mask"]))

    def stage_parameters(self) -> dict[str, dict[str, Parameter]]:
        """Parameters by stage and name, also where FSDP has renamed them."""
        named = {name.replace(FSDP_WRAPPER, ""): parameter for name, parameter in self.named_parameters()}
        return {stage: {name: named[name] for name in content.parameters} for stage, content in self.stages.items()}

    def stage_addresses(self) -> dict[str, list[str]]:
        """Addresses of the parameters that may train, by stage, as a plan wants them; some stages may have none."""
        fixed = {f"backbone.{name}" for name in self.adapter.pretrained} if self.adapter is not None else set()
        return {
            stage: [self.addresses[name] for name in content.parameters if name not in fixed]
            for stage, content in self.stages.items()
        }

    def stage_tensors(self) -> dict[str, dict[str, Tensor]]:
        """Parameters and buffers by stage and name. Buffers of a module of several stages belong to the first."""
        tensors: dict[str, dict[str, Tensor]] = {stage: dict(own) for stage, own in self.stage_parameters().items()}
        for name, buffer in self.named_buffers():
            stages = self._stages_of_module[name.replace(FSDP_WRAPPER, "").rpartition(".")[0]]
            tensors[next(stage for stage in self.stages if stage in stages)][name] = buffer
        return tensors

    def modules_with_stages(self) -> Iterator[tuple[nn.Module, frozenset[str]]]:
        """Every module and the stages that its parameters belong to. Looks modules up by name: some get replaced."""
        for path, module in self.named_modules():
            path = path.replace(FSDP_WRAPPER, "").removesuffix("._fsdp_wrapped_module")
            yield module, self._stages_of_module.get(path, frozenset(self.stages))


def _address(network: Network, stage: str, name: str) -> str:
    """The stage and the library's own name of a parameter, so that patterns of plans can match it.

    Where a normalisation layer is not called so (`bn1`), `norm` is inserted: `*norm*` matches those of any network.
    """
    path, _, last = name.rpartition(".")
    words = [stage, *path.split(".")[1:]]
    if "norm" in type(network.get_submodule(path)).__name__.lower() and "norm" not in path:
        words.append("norm")
    return ".".join([*words, last])
