"""Stages: named groups of a network's parameters, ordered from input to output, and the modules that lie in them."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from thaw.errors import UserError

GRANULARITIES = ("stages", "blocks")

Stages = Mapping[str, Sequence[str]]
"""Names of parameters by stage, input to output."""
Path = tuple[str, ...]
"""Words of a module's dotted name."""


@dataclass(frozen=True)
class Stage:
    """What one stage of a network consists of, by dotted names."""

    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    """Modules that lie wholly in this stage, outermost only, in the order of registration."""


def child_stages(network: nn.Module) -> Stages:
    """One stage for each direct child of `network` that has parameters, under the child's name."""
    return {
        name: [f"{name}.{parameter}" for parameter, _ in child.named_parameters()]
        for name, child in network.named_children()
        if any(True for _ in child.parameters())
    }


def stages_by_prefix(network: nn.Module, granularity: str) -> Stages:
    """Stages from the names of the parameters: what shares a dotted prefix up to its first number belongs together.

    Single layers before the first block are the stage `stem`; norms go with the stage before them.

    Args:
        network: any network whose modules are registered from input to output, like all of torchvision's.
        granularity: "stages" (`layer1`), or "blocks", which splits each stage into its blocks (`layer1_0`).
    """
    require_granularity(granularity)
    groups: dict[Path, list[str]] = {}
    for name, _ in network.named_parameters():
        groups.setdefault(_prefix(network, name, granularity), []).append(name)
    blocks = [not _is_single_layer(network, names) for names in groups.values()]
    stem = blocks.index(True) if any(blocks) else 0  # a chain of single layers, like VGG, has no stem
    named = [
        ("stem" if number < stem else _stage_name(path), names) for number, (path, names) in enumerate(groups.items())
    ]
    return _merge_groups(network, named)


def stages_by_matcher(network: Any, granularity: str) -> Stages:
    """Stages of a timm network, as its own `group_matcher` orders its parameters; by prefix if it has none.

    Args:
        network: a network of timm.
        granularity: "stages" (`layer1`), or "blocks", which makes each block a stage (`layer1_0`).
    """
    from timm.models import group_parameters  # here, because it is an extra

    require_granularity(granularity)
    if not hasattr(network, "group_matcher"):
        return stages_by_prefix(network, granularity)
    matcher = network.group_matcher(coarse=granularity == "stages")
    stem = matcher.get("stem") if isinstance(matcher, dict) else None
    named: list[tuple[str, list[str]]] = []
    for names in group_parameters(network, matcher).values():
        others = [name for name in names if "norm" not in name] or names  # or the pattern *norm* would match the stage
        prefix, _ = Counter(_prefix(network, name, granularity) for name in others).most_common(1)[0]
        is_stem = not named and stem is not None and any(re.match(pattern, names[0]) for pattern in _patterns(stem))
        named.append(("stem" if is_stem else _stage_name(prefix), names))
    return _merge_groups(network, named)


def require_granularity(granularity: str) -> None:
    """Raise UserError unless `granularity` is a known word."""
    if granularity not in GRANULARITIES:
        raise UserError(f"backbone.granularity is {' or '.join(GRANULARITIES)}, not '{granularity}'")


def with_modules(network: nn.Module, stages: Stages) -> tuple[dict[str, Stage], dict[str, frozenset[str]]]:
    """Assign the modules of `network` to stages of its parameters.

    A module without parameters belongs to the stage that it lies in, or to the one registered before it.

    Returns:
        The stages with their modules, and for every module path the stages whose parameters it holds.

    Raises:
        UserError: a parameter is in no stage or, because weights are tied, in two.
    """
    owner = {name: stage for stage, names in stages.items() for name in names}
    stages_held: dict[str, set[str]] = {path: set() for path, _ in network.named_modules(remove_duplicate=False)}
    first_name: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        first = first_name.setdefault(id(parameter), name)
        if name not in owner and first not in owner:
            raise UserError(f"the parameter '{name}' belongs to no stage: name it in the backbone's `stages`")
        stage = owner.get(name) or owner[first]
        if owner.get(first, stage) != stage:
            raise UserError(
                f"the parameter '{name}' belongs to the stages '{owner[first]}' and '{stage}': tied weights cannot be "
                f"frozen in one stage and trained in another. Put both into one stage, or untie them."
            )
        for path in _ancestors(name):
            stages_held[path].add(stage)
    current = next(iter(stages))
    for path, module in network.named_modules(remove_duplicate=False):
        if not stages_held[path]:
            above = stages_held[path.rpartition(".")[0]]
            stages_held[path] = set(above) if len(above) == 1 else {current}
        for name, _ in module.named_parameters(recurse=False):
            current = owner.get(f"{path}.{name}".lstrip("."), current)
    outermost: dict[str, list[str]] = {stage: [] for stage in stages}
    for path, names in stages_held.items():
        if len(names) == 1 and (not path or len(stages_held[path.rpartition(".")[0]]) > 1):
            outermost[next(iter(names))].append(path)
    complete = {stage: Stage(tuple(names), tuple(outermost[stage])) for stage, names in stages.items()}
    return complete, {path: frozenset(names) for path, names in stages_held.items()}


def _prefix(network: nn.Module, name: str, granularity: str) -> Path:
    """Module path up to the first word with a digit; with "blocks" to the second one, where blocks lie inside."""
    words = name.split(".")[:-1]
    numbered = [position for position, word in enumerate(words) if any(map(str.isdigit, word))]
    if not numbered:
        return tuple(words)
    end = numbered[0] + 1
    if granularity == "blocks" and len(numbered) > 1 and _holds_blocks(network.get_submodule(".".join(words[:end]))):
        end = numbered[1] + 1
    return tuple(words[:end])


def _holds_blocks(module: nn.Module) -> bool:
    """Whether `module`, or a list directly in it, is a row of blocks of one class."""
    for part in (module, *module.children()):
        if isinstance(part, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            blocks = [block for block in part.children() if any(True for _ in block.parameters())]
            if len({type(block) for block in blocks}) == 1 and all(_kernels(b.parameters()) > 1 for b in blocks):
                return True
    return False


def _kernels(parameters: Iterable[Tensor]) -> int:
    """How many of the parameters are kernels or matrices."""
    return sum(parameter.ndim >= 2 for parameter in parameters)


def _is_single_layer(network: nn.Module, names: Sequence[str]) -> bool:
    """Whether these parameters have at most one kernel, as convolution + norm. A class token or table is no kernel."""
    own = dict(network.named_parameters())
    return sum(own[name].ndim >= 2 and name.endswith("weight") for name in names) <= 1


def _stage_name(path: Path) -> str:
    """`features.3` -> features3; `encoder.layers.layer_7` -> layer_7; `layer1.0` -> layer1_0."""
    numbered = next((i for i, word in enumerate(path) if any(map(str.isdigit, word))), len(path) - 1)
    parts = [path[numbered]] if path else ["stem"]
    if parts[0].isdigit() and numbered > 0:
        parts = [path[numbered - 1] + parts[0]]
    for word in path[numbered + 1 :]:
        if word.isdigit() and not parts[-1][-1].isdigit():
            parts[-1] += word
        else:
            parts.append(word)
    return "_".join(parts)


def _merge_groups(network: nn.Module, named: Sequence[tuple[str, Sequence[str]]]) -> Stages:
    """Merge groups of one name into one stage, and norms into the stage before them; `head` becomes `head_2`."""
    parameters = dict(network.named_parameters())
    stages: dict[str, list[str]] = {}
    for name, names in named:
        if stages and not _kernels(parameters[parameter] for parameter in names):
            name = next(reversed(stages))
        stages.setdefault("head_2" if name == "head" else name, []).extend(names)
    return stages


def _patterns(matcher: Any) -> Iterator[str]:
    """The regular expressions of one entry of a timm `group_matcher`."""
    yield from [matcher] if isinstance(matcher, str) else (pattern for pattern, _ in matcher)


def _ancestors(name: str) -> Iterator[str]:
    """Paths of all modules that hold the parameter `name`, the root "" included."""
    words = name.split(".")[:-1]
    for end in range(len(words) + 1):
        yield ".".join(words[:end])
