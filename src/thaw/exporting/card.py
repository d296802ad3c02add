"""The model card: what a colleague must know before using the file (Mitchell et al. 2019)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from thaw.data.splits import SPLITS
from thaw.exporting.formats import FORMATS, loading_code
from thaw.exporting.inference import InferenceModel
from thaw.exporting.rebuild import require_recipe
from thaw.finetuning.phase import Plan
from thaw.tasks.metrics import by_split


@dataclass(frozen=True)
class Origin:
    """Where a network comes from.

    Attributes:
        backbone: Name of the backbone.
        weights: The weights that training started from.
        optimizer: The optimizer and its rates, as a phrase.
        seed: The seed of the run.
        counts: Number of samples, by class and split.
        metrics: Final metrics by name and split: `accuracy/test` ...
    """

    backbone: str
    weights: str
    optimizer: str
    seed: int
    counts: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, float]


def model_card(model: InferenceModel, form: str, file: str, plan: Plan, origin: Origin) -> str:
    """Markdown text of the card for `file`. It says nothing about the machine on which it was made."""
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    code = "\n".join(loading_code(model, form, Path(file)))
    things = model.inputs.things
    return f"""# {origin.backbone}, fine-tuned for {len(model.class_names)} classes

It classifies {things}: {origin.backbone} ({parameters:,} parameters) with a new head, fine-tuned by thaw
{version("thaw")}.

## Use

```python
{code}
```

{_usage(model, form)}

Preprocessing, also inside the file:

```json
{json.dumps(model.metadata["preprocessing"], indent=2)}
```

Classes, in the order of the outputs: {", ".join(model.class_names)}.

## Intended use

{things.capitalize()} like those it was trained on, each of exactly one of these classes. It has no answer for anything
else: a sample of none of these classes is given one all the same. Its probabilities are as good as the calibration
error below says, and only for such {things}. Whether it serves some group of people or things worse than others was not
measured.

## Data

Samples of each class:

{_table_by_split(origin.counts)}

## Plan

{_phases(plan)}

Started from weights: {origin.weights}. {origin.optimizer}; seed {origin.seed}.

## Metrics

{_table_by_split(by_split(origin.metrics))}
"""


def _usage(model: InferenceModel, form: str) -> str:
    kind = model.inputs
    if FORMATS[form].parameters_only:
        return f"`{require_recipe(model).logits}` gives logits (B, classes). It takes {kind.network_inputs}."
    network = f"The network takes {kind.user_inputs}, and gives class probabilities (B, classes)."
    runner = f"`python run_onnx.py model.onnx {kind.example_sample}` does all of it. " if form == "onnx" else ""
    return runner + network


def _phases(plan: Plan) -> str:
    rows = ["| phase | epochs | trained stages | rate |", "|---|---|---|---|"]
    for number, phase in enumerate(plan.phases, start=1):
        stages = ", ".join(stage for stage in plan.stages if phase.trains(stage))
        rows.append(f"| {number} | {phase.epochs} | {stages} | x {phase.lr_scale:g} |")
    return "\n".join(rows)


def _table_by_split(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown table of rows by name, with a column for each split that occurs."""
    splits = [split for split in SPLITS if any(split in row for row in rows.values())]
    lines = [f"| | {' | '.join(splits)} |", "|---|" + "---|" * len(splits)]
    for name, row in rows.items():
        values = [row.get(split, "") for split in splits]
        cells = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
