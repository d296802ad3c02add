"""Collects what a run folder holds into a `Report`, also of a run that failed or was stopped."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any, NamedTuple

import yaml
from PIL import Image

from thaw.arguments import for_shell
from thaw.data.module import DataModule
from thaw.data.pairs import parts_of
from thaw.data.splits import SPLITS
from thaw.manifest import naming_damage
from thaw.reporting.drawings import training_charts
from thaw.reporting.history import curves_of, phase_results, rates_of
from thaw.reporting.report import Look, Report, Reproduction, Run, SampleView, Training
from thaw.reporting.results import Results
from thaw.reporting.train_command import train_command
from thaw.runs.files import (
    BASELINES_FILE,
    CONFIG_FILE,
    DATA_FILE,
    ENVIRONMENT_FILE,
    LOG_FILE,
    METRICS_CSV,
    METRICS_FILE,
    OUTPUTS_FILE,
    OVERRIDES_FILE,
    PHASES_FILE,
    SOUP_FILE,
    read_rows,
)
from thaw.runs.folder import RunFolder
from thaw.runs.origin import origin
from thaw.runs.outputs import read_outputs
from thaw.runs.secrets import masked_yaml
from thaw.tasks.outputs import Outputs
from thaw.training.head_choice import HeadResult

THUMBNAIL_PX = 160
"""Longest side of an image in a report."""
LOG_LINES = 30
"""Last lines of the log that the report of a failed run shows."""


class Measured(NamedTuple):
    """What the network gave, in one measurement."""

    outputs: Mapping[str, Outputs]
    """By split."""
    metrics: Mapping[str, float]
    """By name."""
    own: bool = False
    """Whether the run measured this at its end, on its own data."""

    @property
    def split(self) -> str | None:
        """The split that a report is about; None if nothing was measured."""
        return next((split for split in ("test", "val") if split in self.outputs), None)


def measured_by(run: RunFolder) -> Measured:
    """What a run measured at its end; nothing, if it has not come to one since it was started or resumed last."""
    if not run.json(ENVIRONMENT_FILE).get("finished"):
        return Measured({}, {}, own=True)
    read = {split: read_outputs(run.intact(OUTPUTS_FILE.format(split=split))) for split in ("val", "test")}
    return Measured({split: some for split, some in read.items() if some is not None}, run.metrics(), own=True)


def collect(
    run: RunFolder,
    class_names: Sequence[str],
    measured: Measured,
    results: Results[Any] | None,
    data: DataModule | None,
    looks: Sequence[Look] = (),
) -> Report:
    """Return what the report of a run shows.

    Args:
        run: the folder.
        class_names: in the order of the network's outputs.
        measured: a measurement, of the run or of other data.
        results: what it says of its split; None if nothing was measured.
        data: the samples that were measured; None: none are shown.
        looks: where the network looked in some samples.
    """
    config_yaml = (run.path / CONFIG_FILE).read_text(encoding="utf-8", errors="replace")
    config = yaml.safe_load(config_yaml)
    environment = run.json(ENVIRONMENT_FILE)
    ended = run.json(METRICS_FILE) if environment.get("finished") else {}
    with naming_damage(run.path / METRICS_CSV):
        rows = read_rows(run.intact(METRICS_CSV))
        curves, rates = curves_of(rows), rates_of(rows)
    monitor, mode = config["monitor"]["metric"], config["monitor"]["mode"]
    with naming_damage(run.path / PHASES_FILE):
        phases = phase_results(run.json(PHASES_FILE, list), rows, monitor, mode)
    training = Training(monitor, mode, ended.get("epoch"), measured.metrics, curves, phases)
    pictures = training_charts(training, rates)
    if results is not None:
        pictures += results.charts()
    shown = {*(() if results is None else results.wanted()), *(look.index for look in looks)}
    counts, data_report = _data(run, None if measured.own else data)
    baselines = run.json(BASELINES_FILE)
    is_comparable = measured.own and baselines.get("split") == measured.split
    return Report(
        run=_run(run, str(config.get("run_id")), ended, environment),
        network=", ".join(origin(config)),
        things=run.input_spec().things,
        class_names=list(class_names),
        counts={split: counts[split] for split in SPLITS if counts[split]},
        training=training,
        reproduction=_reproduction(run, config_yaml, environment),
        averaged=run.json(SOUP_FILE),
        outputs=dict(measured.outputs),
        calibration={} if results is None else results.calibration,
        heads=[HeadResult(**head) for head in ended.get("heads", [])],
        samples={} if data is None else sample_views(data, shown),
        looks=looks,
        baselines={} if results is None or not is_comparable else baselines.get(results.measure, {}),
        data_report=data_report,
        data_warnings=[] if data is None else data.warnings(),
        pictures=pictures,
    )


def sample_views(data: DataModule, indices: Iterable[int]) -> dict[int, SampleView]:
    """Samples by index as the report shows them: texts, or small images."""
    if data.facts.texts is not None:
        return {index: SampleView(data.facts.name(index), texts=parts_of(data.facts.texts[index])) for index in indices}
    images = {index: data.image(index) for index in indices}  # type: ignore[attr-defined]  # of ImageDataModule
    return {index: SampleView(data.facts.name(index), image=small_image(image)) for index, image in images.items()}


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


def _run(run: RunFolder, run_id: str, results: Mapping[str, Any], environment: Mapping[str, str]) -> Run:
    lines = run.text(LOG_FILE).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("device ")]
    lines = lines[starts[-1] :] if starts else lines  # since it was started or resumed last
    message = ""
    if results:
        state = "finished"
    elif any(line.startswith("Traceback") for line in lines):
        state, message = "failed", lines[-1]
    else:
        stopped = [line for line in lines if "stopped in epoch" in line]
        go_on = "It still trains." if run.in_use else f"To go on: python -m thaw.train {for_shell('resume', run.path)}"
        state, message = "stopped", stopped[-1] if stopped else go_on
    began, written = environment.get("began"), (run.path / CONFIG_FILE).stat().st_mtime
    return Run(
        name=run.path.name,
        run_id=run_id,
        began=datetime.fromisoformat(began) if began else datetime.fromtimestamp(written),
        state=state,
        message=message,
        log_lines=lines[-LOG_LINES:] if state == "failed" else (),
        seconds=results.get("seconds"),
        device=", ".join(environment[name] for name in ("device", "precision") if name in environment),
    )


def _data(run: RunFolder, other: DataModule | None) -> tuple[Counter[str], str]:
    """Number of samples by split, and the data report: of other data, or of the run's own."""
    if other is not None:
        return Counter({split: len(part) for split, part in other.parts.items()}), other.report()
    return Counter(record.split for record in run.records()), run.text(DATA_FILE)


def _reproduction(run: RunFolder, config_yaml: str, environment: Mapping[str, str]) -> Reproduction:
    versions = {name: value for name, value in environment.items() if name not in ("began", "finished", "commit")}
    command = run.json(SOUP_FILE).get("command") or train_command(run.json(OVERRIDES_FILE, list))
    return Reproduction(command, masked_yaml(config_yaml), versions, environment.get("commit"))
