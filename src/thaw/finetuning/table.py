"""The stages of a network, as text for people."""

from collections.abc import Callable
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree
from torch import nn

from thaw.console import as_text
from thaw.finetuning.param_groups import OTHERS
from thaw.finetuning.phase import Plan, explain_addresses
from thaw.models.network import HEAD, Network
from thaw.models.shapes import output_shapes
from thaw.types import InputSpec, TokenSpec


def stage_table(network: Network, plan: Plan, groups: list[dict[str, Any]]) -> str:
    """One row per stage: parameters, the phases that train it, its base rate from the optimizer's `groups`."""
    rates = {group["name"].split("/")[0]: group["lr"] for group in groups}
    table = Table(title="stages, input to output", title_justify="left")
    table.add_column("stage")
    table.add_column("parameters", justify="right")
    table.add_column("trained in phase")
    table.add_column("learning rate", justify="right")
    parts = [trained_parts(network, trained) for trained in plan.trained_in]
    for name, parameters in network.stage_parameters().items():
        trained = [f"{n}{part[name]}" for n, part in enumerate(parts, start=1) if name in part]
        rate = f"{rates[name]:.2e}" if name in rates and trained else "-"
        count = sum(parameter.numel() for parameter in parameters.values())
        table.add_row(name, f"{count:,}", ", ".join(trained) or "never", rate)
    others = [parameter for group in groups if group["name"].startswith(OTHERS) for parameter in group["params"]]
    if others:
        count = sum(parameter.numel() for parameter in others)
        table.add_row(f"({OTHERS})", f"{count:,}", "all", f"{rates[OTHERS]:.2e}")
    return as_text(table).rstrip("\n")


def phase_lines(plan: Plan, shown: Callable[[int], str]) -> str:
    """One line per phase: its length, the factor on rates, and what `shown` says of its first epoch."""
    lines = []
    for number, (phase, end) in enumerate(zip(plan.phases, plan.ends, strict=True), start=1):
        epochs = f"{phase.epochs} epoch{'s' * (phase.epochs > 1)}"
        lines.append(f"phase {number}: {epochs} at rate x {phase.lr_scale:g}, reads {shown(end - phase.epochs)}")
    return "\n".join(lines)


def trained_parts(network: Network, trained: frozenset[str]) -> dict[str, str]:
    """The stages that train, each with "" if all of its parameters do, else with how many: " (480 parameters)"."""
    parts = {}
    for stage, parameters in network.stage_parameters().items():
        sizes = {network.addresses[name]: parameter.numel() for name, parameter in parameters.items()}
        if own := trained & sizes.keys():
            parts[stage] = "" if own == sizes.keys() else f" ({sum(sizes[address] for address in own):,} parameters)"
    return parts


def trained_names(network: Network, trained: frozenset[str]) -> str:
    """The stages that train, in a row, such as `layer4 (480 parameters), head`."""
    return ", ".join(stage + part for stage, part in trained_parts(network, trained).items())


def phase_rows(network: Network, plan: Plan) -> list[dict[str, Any]]:
    """Each phase as plain values: its epochs, what trains, how many parameters that are, the factor on rates."""
    sizes = {network.addresses[n]: p.numel() for own in network.stage_parameters().values() for n, p in own.items()}
    return [
        {
            "epochs": phase.epochs,
            "trains": "all stages" if len(trained) == len(sizes) else trained_names(network, trained),
            "parameters": sum(sizes[address] for address in trained),
            "lr_scale": phase.lr_scale,
        }
        for phase, trained in zip(plan.phases, plan.trained_in, strict=True)
    ]


def stage_tree(network: Network, num_features: int, spec: InputSpec) -> str:
    """The stages and the modules in them, with parameter counts and output shapes without the batch."""
    shapes = output_shapes(network, spec)
    may_train = network.stage_addresses()
    tree = Tree(f"input {spec.shape}, {_parameters(network.backbone):,} parameters")
    for name, stage in network.stages.items():
        if name == HEAD:
            continue
        count = sum(network.get_parameter(parameter).numel() for parameter in stage.parameters)
        sizes = list(map(str, shapes.get(name, ())))
        if isinstance(spec, TokenSpec) and len(sizes) == 2:
            sizes[0] = "T"  # tokens
        shape = f" -> {' x '.join(sizes)}" if sizes else ""
        own = [parameter for parameter in stage.parameters if network.addresses[parameter] in may_train[name]]
        in_adapters = sum(network.get_parameter(parameter).numel() for parameter in own)
        adapters = f", {in_adapters:,} of them in adapters" if network.adapter is not None else ""
        branch = tree.add(f"[bold]{escape(name)}[/bold]  {count:,}{adapters}{shape}")
        modules = [(path, network.get_submodule(path)) for path in stage.modules]
        modules = [(path, module) for path, module in modules if _parameters(module)]
        if len(modules) == 1:  # one module is the whole stage: show what it is made of
            path, module = modules[0]
            parts = [(f"{path}.{name}", part) for name, part in module.named_children() if _parameters(part)]
            modules = parts or modules
        for path, module in modules:
            label = f"{path.removeprefix('backbone.')}  {type(module).__name__}"
            branch.add(f"{escape(label)}  {_parameters(module):,}")
    tree.add(f"[bold]head[/bold]  new, {num_features} -> classes")
    return as_text(tree) + f"in plans {explain_addresses(network.stage_addresses())}"


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
