"""The structure of what is fine-tuned, for people."""

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree
from torch import fx, nn

from thaw.console import as_text
from thaw.finetuning.phase import Plan
from thaw.models.backbone import Backbone
from thaw.models.shapes import outputs
from thaw.types import TokenStates


def stage_table(stages: nn.ModuleDict, plan: Plan, groups: list[dict[str, Any]]) -> str:
    """One row a stage: parameters, the phases that train it, its base rate (`groups`: the optimizer's)."""
    rates = {group["name"].split("/")[0]: group["lr"] for group in groups}
    phases = ", ".join(f"{n}: {p.epochs} epochs at rate x {p.lr_scale:g}" for n, p in enumerate(plan.phases, start=1))
    table = Table(title="stages, input to output", caption=f"phases {phases}", title_justify="left")
    table.add_column("stage")
    table.add_column("parameters", justify="right")
    table.add_column("trained in phase")
    table.add_column("learning rate", justify="right")
    for name, module in stages.items():
        trained = [str(n) for n, phase in enumerate(plan.phases, start=1) if phase.trains(name)]
        rate = f"{rates[name]:.2e}" if name in rates and trained else "-"
        table.add_row(name, f"{_parameters(module):,}", ", ".join(trained) or "never", rate)
    return as_text(table)


def stage_tree(backbone: Backbone) -> str:
    """Stages, input to output, and what they are made of: parameters, output shape without the batch."""
    total = sum(_parameters(stage) for stage in backbone.stages.values())
    tree = Tree("")
    for name, output in outputs(backbone.stages, backbone.input_spec):
        if name == "input":
            tree.label = f"input {_shape(output)}, {total:,} parameters"
            continue
        stage = backbone.stages[name]
        branch = tree.add(f"[bold]{escape(name)}[/bold]  {_parameters(stage):,} -> {_shape(output)}")
        for path, block in _blocks(stage):
            branch.add(f"{escape(path)}  {type(block).__name__}  {_parameters(block):,}")
    tree.add(f"[bold]head[/bold]  new, {backbone.num_features} -> classes")
    return as_text(tree)


def _blocks(stage: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What runs in a stage and has parameters, in order."""
    if isinstance(stage, fx.GraphModule):
        called = [(str(node.target), stage.get_submodule(str(node.target))) for node in _calls(stage)]
    else:
        called = list(stage.named_children())
    return ((path, block) for path, block in called if _parameters(block))


def _calls(stage: fx.GraphModule) -> list[fx.Node]:
    return [node for node in stage.graph.nodes if node.op == "call_module"]


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _shape(x: Any) -> str:
    """Without the batch."""
    if isinstance(x, dict):
        return "T tokens"
    if isinstance(x, TokenStates):
        return f"T x {x.states.shape[2]}"
    return " x ".join(map(str, x.shape[1:]))
