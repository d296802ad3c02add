"""Writes the report of a run into its folder."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thaw.arguments import for_shell
from thaw.data.module import DataModule
from thaw.distributed.ranks import ranks
from thaw.faults import fault
from thaw.models.network import Network
from thaw.reporting.collect import Measured, collect, measured_by
from thaw.reporting.kinds import results_of
from thaw.reporting.looks import looks
from thaw.reporting.page import render
from thaw.reporting.report import Look
from thaw.runs.files import CALIBRATION_FILE, REPORT_FILE
from thaw.runs.folder import RunFolder
from thaw.storage import write_atomically

log = logging.getLogger(__name__)


@contextmanager
def reported(run: RunFolder, class_names: Sequence[str], data: DataModule, network: Network) -> Iterator[None]:
    """Write the report when the `with` block ends, also by an error or a signal. A report that fails only warns.

    The arguments are those of `write_report`.
    """
    try:
        yield
    finally:
        if ranks().is_first and run.path.is_dir():
            try_to_report(run, class_names, data, network)


def try_to_report(run: RunFolder, *arguments: Any, **more: Any) -> None:
    """Write the report and log its file; if that fails, log why. The arguments are those of `write_report`."""
    try:
        log.info("report: %s", write_report(run, *arguments, **more))
    except Exception as error:
        again = f"python -m thaw.report {for_shell('run', run.path)}"
        if (words := fault(error)) is not None:
            log.warning("the report was not written: %s, and type %s", words, again)
        else:
            log.warning("the report was not written; again: %s", again, exc_info=True)


def write_report(
    run: RunFolder,
    class_names: Sequence[str],
    data: DataModule | None = None,
    network: Network | None = None,
    measured: Measured | None = None,
    file: str | Path = REPORT_FILE,
) -> Path:
    """Write the report of a run, into its folder unless `file` is elsewhere, and return the file.

    Args:
        run: the folder.
        class_names: in the order of the network's outputs.
        data: the samples, to show some of them; None: none are shown.
        network: the network with its best weights, to show where it looked; None: that is not shown.
        measured: a measurement of `data`, which may be other data than the run's; None: what the run measured.
        file: name of the file, or a path elsewhere.
    """
    measured = measured or measured_by(run)
    results = None
    if measured.split is not None:
        results = results_of(measured.outputs[measured.split], class_names, run.json(CALIBRATION_FILE))
    shown: list[Look] = []
    if data is not None and network is not None and results is not None:
        try:
            shown = looks(network, data, results)
        except Exception:  # whatever a network does with images that are partly hidden, or with gradients
            log.warning("the report does not show where the network looked", exc_info=True)
    write_atomically(run.path / file, render(collect(run, class_names, measured, results, data, shown)))
    return run.path / file
