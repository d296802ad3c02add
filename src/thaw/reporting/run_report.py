"""The report of a run folder, also of one whose run failed or was stopped.

N: samples, C: classes.
"""

import json
import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image

from thaw.data.module import DataModule
from thaw.data.splits import SPLITS
from thaw.distributed.ranks import ranks
from thaw.models.network import Network
from thaw.reporting.history import curves_of, phase_results, rates_of
from thaw.reporting.looks import looks
from thaw.reporting.mistakes import wanted_samples
from thaw.reporting.page import render
from thaw.reporting.pictures.learning_curves import learning_curves
from thaw.reporting.pictures.phases import PhaseSpan
from thaw.reporting.pictures.precision_recall import precision_recall
from thaw.reporting.pictures.rates import stage_rates
from thaw.reporting.pictures.reliability import reliability
from thaw.reporting.pictures.render import svg
from thaw.reporting.report import Look, Picture, Report, Reproduction, Run, SampleView, Training
from thaw.runs.files import (
    BASELINES_FILE,
    CALIBRATION_FILE,
    CONFIG_FILE,
    DATA_FILE,
    ENVIRONMENT_FILE,
    LOG_FILE,
    METRICS_CSV,
    METRICS_FILE,
    OUTPUTS_FILE,
    OVERRIDES_FILE,
    PHASES_FILE,
    REPORT_FILE,
)
from thaw.runs.folder import RunFolder
from thaw.runs.loggers import read_rows
from thaw.runs.outputs import Outputs, read_outputs
from thaw.storage import write_atomically

log = logging.getLogger(__name__)

THUMBNAIL_PX = 160
"""Longest side of an image in a report."""
LOG_LINES = 30
"""Last lines of the log that the report of a failed run shows."""


class Measured(NamedTuple):
    """A measurement of a finished run, on its own or on other data."""

    outputs: Mapping[str, Outputs]
    """What the network gave, by split."""
    metrics: Mapping[str, float]
    """By name."""


@contextmanager
def reported(run: RunFolder, class_names: Sequence[str], data: DataModule, network: Network) -> Iterator[None]:
    """Write the report when the `with` block ends, also by an error or a signal. A report that fails only warns.

    The arguments are those of `write_report`.
    """
    try:
        yield
    finally:
        if ranks().is_first:
            try_to_report(run, class_names, data, network)


def try_to_report(run: RunFolder, *arguments: Any, **more: Any) -> None:
    """Write the report and log its file; if that fails, log why. The arguments are those of `write_report`."""
    try:
        log.info("report: %s", write_report(run, *arguments, **more))
    except Exception:
        log.warning("the report was not written; again: python -m thaw.report run=%s", run.path, exc_info=True)


def write_report(
    run: RunFolder,
    class_names: Sequence[str],
    data: DataModule | None = None,
    network: Network | None = None,
    again: Measured | None = None,
    file: str = REPORT_FILE,
) -> Path:
    """Write the report of a run into its folder, and return the file.

    Args:
        run: the folder.
        class_names: in the order of the network's outputs.
        data: the samples, to show some of them; None: none are shown.
        network: the network with its best weights, to show where it looked; None: that is not shown.
        again: a measurement of `data`, which may be other data than the run's; None: what the run measured at its end.
        file: name of the file.
    """
    if again is not None:
        outputs = again.outputs
    else:
        read = {split: read_outputs(run.path / OUTPUTS_FILE.format(split=split)) for split in ("val", "test")}
        outputs = {split: o for split, o in read.items() if o is not None} if is_finished(run) else {}
    measured = next((outputs[split] for split in ("test", "val") if split in outputs), None)
    shown: list[Look] = []
    if data is not None and network is not None and measured is not None:
        try:
            shown = looks(network, data, measured)
        except Exception:  # whatever a network does with images that are partly hidden, or with gradients
            log.warning("the report does not show where the network looked", exc_info=True)
    page = render(report_of(run, class_names, data, shown, outputs, again))
    write_atomically(run.path / file, page)
    return run.path / file


def report_of(
    run: RunFolder,
    class_names: Sequence[str],
    data: DataModule | None,
    shown: Sequence[Look],
    outputs: Mapping[str, Outputs],
    again: Measured | None = None,
) -> Report:
    """What the report of a run shows.

    Args:
        run: see `write_report`, as for all that is not named here.
        class_names: in the order of the outputs.
        data: the samples.
        shown: where the network looked in some samples.
        outputs: what the network gave, by split.
        again: the measurement that the outputs are of, if it is not the run's own.
    """
    config_yaml = _text(run.path / CONFIG_FILE)
    config = yaml.safe_load(config_yaml)
    monitor, mode = config["monitor"]["metric"], config["monitor"]["mode"]
    rows = read_rows(run.path / METRICS_CSV)
    curves = curves_of(rows)
    results = _json(run.path / METRICS_FILE) if is_finished(run) else {}
    phases = phase_results(_json(run.path / PHASES_FILE), rows, monitor, mode)
    measured = next((split for split in ("test", "val") if split in outputs), None)
    baselines = _json(run.path / BASELINES_FILE)
    environment = _json(run.path / ENVIRONMENT_FILE)
    temperature = _json(run.path / CALIBRATION_FILE).get("temperature")
    overrides = _json(run.path / OVERRIDES_FILE) or []
    commit = environment.get("commit")
    versions = {name: value for name, value in environment.items() if name not in ("began", "finished", "commit")}
    metrics = results.get("metrics", {}) if again is None else again.metrics
    training = Training(monitor, mode, results.get("epoch"), metrics, curves, phases)
    wanted = [] if data is None or measured is None else wanted_samples(outputs[measured])
    if again is None or data is None:
        counts, data_report = Counter(record.split for record in run.records()), _text(run.path / DATA_FILE)
    else:
        counts, data_report = Counter({split: len(part) for split, part in data.parts.items()}), data.report()
    return Report(
        run=_run(run, config, results, environment),
        network=_network(config),
        things=run.input_spec().things,
        class_names=list(class_names),
        counts={split: counts[split] for split in SPLITS if counts[split]},
        training=training,
        reproduction=Reproduction(
            " ".join(["python -m thaw.train", *map(shlex.quote, overrides)]), config_yaml, versions, commit
        ),
        outputs=dict(outputs),
        temperature=temperature,
        samples={} if data is None else {i: sample_view(data, i) for i in {*wanted, *(look.index for look in shown)}},
        looks=shown,
        baselines=baselines.get("accuracy", {}) if again is None and baselines.get("split") == measured else {},
        data_report=data_report,
        data_warnings=[] if data is None else data.warnings(),
        pictures=_pictures(training, rows, outputs, measured, temperature, class_names),
    )


def sample_view(data: DataModule, index: int) -> SampleView:
    """A sample as the report shows it: its text, or a small image."""
    name = data.facts.name(index)
    if data.facts.texts is not None:
        return SampleView(name, text=data.facts.texts[index])
    image = data.image(index)  # type: ignore[attr-defined]  # of ImageDataModule
    return SampleView(name, image=small_image(image))


def small_image(image: Image.Image) -> bytes:
    """A JPEG of at most `THUMBNAIL_PX` per side; a PNG of an image so small that JPEG would blur it."""
    image = image.copy()
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    file = BytesIO()
    if max(image.size) <= 48:
        image.save(file, "PNG")
    else:
        image.convert("RGB").save(file, "JPEG", quality=82)
    return file.getvalue()


def is_finished(run: RunFolder) -> bool:
    """Whether a run has come to its end since it was started or resumed last."""
    return bool(_json(run.path / ENVIRONMENT_FILE).get("finished"))


def _run(run: RunFolder, config: Mapping[str, Any], results: Mapping[str, Any], environment: Mapping[str, str]) -> Run:
    lines = _text(run.path / LOG_FILE).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("device ")]
    lines = lines[starts[-1] :] if starts else lines  # since it was started or resumed last
    message = ""
    if results:
        state = "finished"
    elif any(line.startswith("Traceback") for line in lines):
        state, message = "failed", lines[-1]
    else:
        stopped = [line for line in lines if "stopped in epoch" in line]
        go_on = "It still trains." if run.in_use else f"To go on: python -m thaw.train resume={run.path}"
        state, message = "stopped", stopped[-1] if stopped else go_on
    device = ", ".join(environment[name] for name in ("device", "precision") if name in environment)
    return Run(
        name=run.path.name,
        run_id=str(config.get("run_id")),
        began=datetime.fromisoformat(environment["began"]) if environment else datetime.now(),
        state=state,
        message=message,
        log_lines=lines[-LOG_LINES:] if state == "failed" else (),
        seconds=results.get("seconds"),
        device=device,
    )


def _network(config: Mapping[str, Any]) -> str:
    backbone = config["backbone"]
    name = Path(str(backbone.get("name") or "")).name or backbone["_target_"].rpartition(".")[2]
    weights = config.get("init_from") or backbone.get("weights")
    return f"{name}, {'from scratch' if weights is None else f'weights {Path(str(weights)).name}'}"


def _pictures(
    training: Training,
    rows: Sequence[Mapping[str, str]],
    outputs: Mapping[str, Outputs],
    measured: str | None,
    temperature: float | None,
    class_names: Sequence[str],
) -> list[Picture]:
    pictures = []
    phases = [PhaseSpan(row.first_epoch, row.last_epoch, row.trains) for row in training.phases]
    main = [name for name in ("loss", training.monitor.partition("/")[0]) if name in training.curves]
    if main:
        curves = learning_curves(
            {name: training.curves[name] for name in dict.fromkeys(main)}, phases, training.best_epoch
        )
        pictures.append(
            Picture("learning", "Learning curves of training and validation, by phase", svg(curves, "curves"))
        )
    rates = rates_of(rows)
    if any(len(points) > 1 for points in rates.values()):
        pictures.append(Picture("learning", "Learning rate of each stage", svg(stage_rates(rates), "rates")))
    if measured is not None:
        targets, probabilities = outputs[measured].targets, outputs[measured].probabilities
        calibrated = None if temperature is None else outputs[measured].calibrated(temperature).probabilities
        drawn = reliability(targets, probabilities, calibrated)
        pictures.append(Picture("trust", "Accuracy by confidence", svg(drawn, "reliability")))
        drawn = precision_recall(targets, probabilities, class_names)
        pictures.append(Picture("classes", "Precision and recall at every threshold", svg(drawn, "precision")))
    return pictures


def _json(file: Path) -> Any:
    return json.loads(_text(file)) if file.is_file() else {}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
