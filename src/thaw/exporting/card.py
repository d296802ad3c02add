"""The model card: what a colleague must know before using the file (Mitchell et al. 2019)."""

import json
from importlib.metadata import version
from pathlib import Path

from thaw.exporting.deployed import Deployed
from thaw.exporting.usage import loading_code
from thaw.freezing.phase import Plan
from thaw.run_folder import DATA_FILE, RunFolder, Trained

TAKES = {
    "state_dict": "Takes normalised images, float (B, C, H, W), see preprocessing below; gives logits (B, classes).",
    "safetensors": "Takes normalised images, float (B, C, H, W), see preprocessing below; gives logits (B, classes).",
    "exported_program": "Takes uint8 images (B, C, H, W), resized and cut, and gives class probabilities (B, classes).",
    "onnx": "`python run_onnx.py model.onnx image.jpg` does all of it. The network takes uint8 images (B, C, H, W), "
    "resized and cut, and gives class probabilities (B, classes).",
}


def model_card(run: RunFolder, was: Trained, deployed: Deployed, form: str, file: Path, plan: Plan) -> str:
    """Markdown."""
    backbone = was.cfg.backbone
    name = backbone.get("name") or backbone._target_.rsplit(".", 1)[-1]
    parameters = sum(p.numel() for p in was.network.parameters())
    code = loading_code(deployed, form, file.name)
    metadata = {key: json.loads(value) for key, value in deployed.metadata().items()}
    return f"""# {name}, fine-tuned for {len(was.class_names)} classes

An image classifier: {name} ({parameters:,} parameters) with a new head, fine-tuned by thaw {version("thaw")}.

## Use

```python
{chr(10).join(code)}
```

{TAKES[form]}

Preprocessing, also inside the file:

```json
{json.dumps(metadata["preprocessing"], indent=2)}
```

Classes, in the order of the outputs: {", ".join(was.class_names)}.

## Intended use

Images like those it was trained on, of exactly one of these classes each. It has no answer for anything else: an image
of no class gets one all the same. Its probabilities are as good as the calibration error below says, and only for such
images. Whether some group of people or things in the images is served worse was not measured.

## Data

```text
{(run.path / DATA_FILE).read_text().strip()}
```

## Plan

{_phases(plan)}

Started from weights: {backbone.get("weights")}. Optimizer {was.cfg.optimizer.optimizer._target_.rsplit(".", 1)[-1]},
head's rate {was.cfg.optimizer.lr:g}, each stage below x {was.cfg.optimizer.lr_decay:g}; seed {was.cfg.seed}.

## Metrics

{_metrics(run.metrics())}
"""


def _phases(plan: Plan) -> str:
    rows = ["| phase | epochs | trained stages | rate |", "|---|---|---|---|"]
    for number, phase in enumerate(plan.phases, start=1):
        stages = ", ".join(stage for stage in plan.stages if phase.trains(stage))
        rows.append(f"| {number} | {phase.epochs} | {stages} | x {phase.lr_scale:g} |")
    return "\n".join(rows)


def _metrics(metrics: dict[str, float]) -> str:
    splits = [split for split in ("train", "val", "test") if any(name.endswith(f"/{split}") for name in metrics)]
    rows = [f"| | {' | '.join(splits)} |", "|---|" + "---|" * len(splits)]
    for category in sorted({name.split("/")[0] for name in metrics if name.split("/")[-1] in splits}):
        values = [metrics.get(f"{category}/{split}") for split in splits]
        rows.append(f"| {category} | {' | '.join('' if v is None else f'{v:.4f}' for v in values)} |")
    return "\n".join(rows)
