"""The structure of what is fine-tuned, for people."""

from typing import Any

from rich.table import Table
from torch import nn

from thaw.console import as_text
from thaw.freezing.phase import Plan


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
        count = sum(p.numel() for p in module.parameters())
        rate = f"{rates[name]:.2e}" if name in rates and trained else "-"
        table.add_row(name, f"{count:,}", ", ".join(trained) or "never", rate)
    return as_text(table)
