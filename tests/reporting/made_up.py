"""Reports of runs that never were."""

from dataclasses import replace
from datetime import datetime
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from thaw.reporting.kinds import results_in
from thaw.reporting.report import PhaseRow, Report, Reproduction, Run, SampleView, Training
from thaw.tasks.outputs import ClassOutputs, MultiOutputs, NumberOutputs


def outputs(num_classes: int, total: int, accuracy: float = 0.9, seed: int = 0, first: int = 1000) -> ClassOutputs:
    """Every class in turn; the others are confused with the class that follows, mostly."""
    generator = np.random.default_rng(seed)
    targets = np.arange(total) % num_classes
    shift = generator.choice([1, 2, 3], total, p=[0.7, 0.2, 0.1])
    predictions = np.where(generator.random(total) < accuracy, targets, (targets + shift) % num_classes)
    logits = generator.normal(size=(total, num_classes))
    logits[np.arange(total), predictions] = logits.max(axis=1) + generator.exponential(3, total)
    return ClassOutputs(np.arange(first, first + total), targets, logits.astype(np.float32))


def label_outputs(total: int = 80, columns: int = 3, seed: int = 0, first: int = 1000) -> MultiOutputs:
    """Any of some labels for each sample, told with some mistakes."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((total, columns)) < np.linspace(0.2, 0.6, columns)).astype(np.int64)
    logits = 4 * (targets - 0.5) + generator.normal(size=targets.shape) * 1.5
    return MultiOutputs(np.arange(first, first + total), targets, logits.astype(np.float32))


def number_outputs(total: int = 80, columns: int = 1, seed: int = 0, first: int = 1000) -> NumberOutputs:
    """Numbers of very different sizes, told with some noise."""
    generator = np.random.default_rng(seed)
    targets = generator.normal(size=(total, columns)) * 10.0 ** np.arange(columns) + 5
    values = targets + generator.normal(size=targets.shape) * 0.3 * 10.0 ** np.arange(columns)
    return NumberOutputs(np.arange(first, first + total), targets, values.astype(np.float32))


def image(size_px: int = 32, seed: int = 0, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def report(num_classes: int = 3, total: int = 90, accuracy: float = 0.9, size_px: int = 32, **changes: Any) -> Report:
    """A finished run on images; `changes` are fields of `Report`."""
    measured = {split: outputs(num_classes, total, accuracy, seed) for seed, split in enumerate(("val", "test"))}
    made = Report(
        run=Run("flowers", "8069d4b5", datetime(2026, 3, 1, 9, 30), "finished", seconds=55.5, device="1 CPU, 32-true"),
        network="resnet18 of torchvision, weights DEFAULT",
        things="images",
        class_names=[f"class {number}" for number in range(num_classes)],
        counts={"train": 5 * total, "val": total, "test": total},
        training=Training(
            "accuracy/val",
            "max",
            5,
            {"accuracy/train": 0.97, "accuracy/val": 0.93, "accuracy/test": 0.9, "loss/val": 0.25, "plan/phase": 2.0},
            {"loss": {"val": [(epoch, 1 / (epoch + 1)) for epoch in range(12)]}},
            [
                PhaseRow(0, 2, "head", 1290, 1.0, None, 0.7, 5.0, 0.4, 0.98),
                PhaseRow(3, 11, "layer3, layer4, head", 445266, 0.5, 0.7, 0.93, 50.5, 1.9, 0.0),
            ],
        ),
        reproduction=Reproduction(
            "python -m thaw.train data=image_folder data.root=flowers",
            "seed: 0\n",
            {"thaw": "0.3.0", "torch": "2.11.0"},
            "84c9cf6",
        ),
        outputs=measured,
        calibration={"temperature": 1.4},
        baselines={"k-NN on pretrained features": 0.7},
        data_report="class 0   30",
    )
    made = replace(made, **changes)
    if "samples" not in changes and (results := results_in(made)) is not None:
        shown = {i: SampleView(f"photos/{i}.jpg", image=image(size_px, i)) for i in results.wanted()}
        made = replace(made, samples=shown)
    return made
