"""The model card: what a colleague must know before using the file (Mitchell et al. 2019)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from thaw.data.splits import SPLITS
from thaw.exporting.deployed import InferenceModel
from thaw.exporting.usage import loading_code, require_library
from thaw.finetuning.phase import Plan
from thaw.tasks.metrics import by_split


@dataclass(frozen=True)
class Origin:
    """Where a network comes from."""

    name: str
    """Of the backbone."""
    weights: str
    """What it started from."""
    optimizer: str
    """With its rates."""
    seed: int
    counts: Mapping[str, Mapping[str, int]]
    """By class, by split."""
    metrics: Mapping[str, float]


def model_card(deployed: InferenceModel, form: str, file: str, plan: Plan, origin: Origin) -> str:
    """Markdown. It says nothing of the machine that it was made on."""
    parameters = sum(p.numel() for p in deployed.network.parameters())
    code = loading_code(deployed, form, file)
    metadata = {key: json.loads(value) for key, value in deployed.metadata().items()}
    return f"""# {origin.name}, fine-tuned for {len(deployed.class_names)} classes

It classifies {deployed.things}: {origin.name} ({parameters:,} parameters) with a new head, fine-tuned by thaw
{version("thaw")}.

## Use

```python
{chr(10).join(code)}
```

{_use(deployed, form)}

Preprocessing, also inside the file:

```json
{json.dumps(metadata["preprocessing"], indent=2)}
```

Classes, in the order of the outputs: {", ".join(deployed.class_names)}.

## Intended use

{deployed.things.capitalize()} like those it was trained on, of exactly one of these classes each. It has no answer for
anything else: what is of no class gets one all the same. Its probabilities are as good as the calibration error below
says, and only for such {deployed.things}. Whether some group of people or things in them is served worse was not
measured.

## Data

Samples of each class:

{_table(origin.counts)}

## Plan

{_phases(plan)}

Started from weights: {origin.weights}. {origin.optimizer}; seed {origin.seed}.

## Metrics

{_table(by_split(origin.metrics))}
"""


def _use(deployed: InferenceModel, form: str) -> str:
    if form in ("state_dict", "safetensors"):
        logits = require_library(deployed.backbone).logits
        return f"`{logits}` gives logits (B, classes). It takes {deployed.parameters_take}."
    whole = f"The network takes {deployed.whole_takes}, and gives class probabilities (B, classes)."
    sample = "image.jpg" if deployed.things == "images" else '"a text"'
    return f"`python run_onnx.py model.onnx {sample}` does all of it. {whole}" if form == "onnx" else whole


def _phases(plan: Plan) -> str:
    rows = ["| phase | epochs | trained stages | rate |", "|---|---|---|---|"]
    for number, phase in enumerate(plan.phases, start=1):
        stages = ", ".join(stage for stage in plan.stages if phase.trains(stage))
        rows.append(f"| {number} | {phase.epochs} | {stages} | x {phase.lr_scale:g} |")
    return "\n".join(rows)


def _table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """A row a name, a column a split."""
    splits = [split for split in SPLITS if any(split in row for row in rows.values())]
    lines = [f"| | {' | '.join(splits)} |", "|---|" + "---|" * len(splits)]
    for name, row in rows.items():
        values = [row.get(split, "") for split in splits]
        lines.append(f"| {name} | {' | '.join(f'{v:.4f}' if isinstance(v, float) else str(v) for v in values)} |")
    return "\n".join(lines)
