"""Where pictures, tables and texts of a run go: each logger gets them in the form that it can hold.

Names are `category/split`, or `category/stage`. A sink is a logger as this module sees it; `sinks` makes them.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lightning import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from matplotlib.figure import Figure
from numpy.typing import NDArray

from thaw.reporting.pictures.histograms import stage_histograms
from thaw.reporting.pictures.render import png, rgb
from thaw.reporting.stage_graph import stage_graph
from thaw.runs.wandb import ResumableWandbLogger

PICTURES = "pictures"
"""Folder in the run folder, and of artifacts."""
Histograms = Mapping[str, tuple[NDArray[np.integer], NDArray[np.floating]]]
"""By stage: counts (bins,) and edges (bins + 1,)."""


class Sink(Protocol):
    """A place that pictures, histograms, tables and texts are handed to. `step` is the number of optimizer steps."""

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Take a picture."""

    def histograms(self, name: str, values: Histograms, step: int) -> None:
        """Take a histogram for each stage."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Take a table."""

    def text(self, name: str, text: str) -> None:
        """Take a text that is shown as it is typed, with its line breaks."""

    def network(self, stages: Mapping[str, Sequence[str]], tree: str) -> None:
        """Take the modules of each stage, by path, and the same as a text."""


class TensorBoardSink:
    """TensorBoard: images, histograms, texts, a graph of the stages."""

    def __init__(self, logger: TensorBoardLogger):
        self.writer = logger.experiment

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Show it under IMAGES."""
        self.writer.add_image(name, rgb(figure), step, dataformats="HWC")

    def histograms(self, name: str, values: Histograms, step: int) -> None:
        """Show them under HISTOGRAMS."""
        for stage, (counts, edges) in values.items():
            centres = (edges[1:] + edges[:-1]) / 2
            self.writer.add_histogram_raw(
                f"{name}/{stage}",
                min=edges[0],
                max=edges[-1],
                num=counts.sum(),
                sum=(counts * centres).sum(),
                sum_squares=(counts * centres**2).sum(),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
                global_step=step,
            )

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Show it under TEXT."""
        lines = [columns, ["---"] * len(columns), *rows]
        cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
        self.writer.add_text(name, "\n".join("| " + " | ".join(line) + " |" for line in cells), step)

    def text(self, name: str, text: str) -> None:
        """Show it under TEXT."""
        self.writer.add_text(name, "\n".join("    " + line for line in text.splitlines()), 0)

    def network(self, stages: Mapping[str, Sequence[str]], tree: str) -> None:
        """Show it under GRAPHS, and as a text."""
        self.writer._get_file_writer().add_onnx_graph(stage_graph(stages))  # of any origin: it only writes the graph
        self.text("network/stages", tree)


class WandbSink:
    """Weights & Biases: images, histograms and tables of its own kinds."""

    def __init__(self, logger: ResumableWandbLogger):
        import wandb  # here, because it takes a second

        self.logger, self.wandb = logger, wandb

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Log an image."""
        self._log({name: self.wandb.Image(rgb(figure))})

    def histograms(self, name: str, values: Histograms, step: int) -> None:
        """Log a histogram for each stage."""
        self._log({f"{name}/{stage}": self.wandb.Histogram(np_histogram=value) for stage, value in values.items()})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table."""
        cells = [[value if isinstance(value, int | float) else str(value) for value in row] for row in rows]
        self._log({name: self.wandb.Table(columns=list(columns), data=cells)})

    def text(self, name: str, text: str) -> None:
        """Log it as HTML that keeps the line breaks."""
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        self._log({name: self.wandb.Html(f"<pre>{escaped}</pre>", inject=False)})

    def network(self, stages: Mapping[str, Sequence[str]], tree: str) -> None:
        """Log the tree of stages as a text."""
        self.text("network/stages", tree)

    def _log(self, values: Mapping[str, Any]) -> None:
        self.logger.log_media(values)


class FileSink:
    """Files: pictures as PNG, tables as CSV, texts as they are."""

    def __init__(self, folder: Path):
        self.folder = folder

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Write a PNG."""
        self._write(f"{name}_{step:06}.png", png(figure))

    def histograms(self, name: str, values: Histograms, step: int) -> None:
        """Write a picture of all stages."""
        self.figure(f"histograms/{name}", stage_histograms(values, name), step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Write a CSV."""
        file = self._file(f"{name}_{step:06}.csv")
        with file.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows([columns, *rows])

    def text(self, name: str, text: str) -> None:
        """Write a text file."""
        self._write(f"{name}.txt", text.encode())

    def network(self, stages: Mapping[str, Sequence[str]], tree: str) -> None:
        """Write the tree of stages."""
        self.text("network/stages", tree)

    def _file(self, name: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _write(self, name: str, content: bytes) -> None:
        self._file(name).write_bytes(content)


class MLflowSink(FileSink):
    """MLflow: the same files as artifacts."""

    def __init__(self, logger: MLFlowLogger, folder: Path):
        super().__init__(folder)
        self.client, self.run_id = logger.experiment, logger.run_id

    def _write(self, name: str, content: bytes) -> None:
        super()._write(name, content)
        self._send(name)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Write a CSV and send it."""
        super().table(name, columns, rows, step)
        self._send(f"{name}_{step:06}.csv")

    def _send(self, name: str) -> None:
        place = Path(PICTURES, name).parent
        self.client.log_artifact(self.run_id, str(self.folder / name), place.as_posix())


def sinks(trainer: Trainer) -> list[Sink]:
    """One for each logger that holds pictures; if there is none, the folder `pictures/` of the run.

    To be called on the first process only.
    """
    folder = Path(trainer.default_root_dir) / PICTURES
    made = [sink for logger in trainer.loggers if (sink := _sink(logger, folder)) is not None]
    return made or [FileSink(folder)]


def _sink(logger: Logger, folder: Path) -> Sink | None:
    if isinstance(logger, TensorBoardLogger):
        return TensorBoardSink(logger)
    if isinstance(logger, ResumableWandbLogger):
        return WandbSink(logger)
    return MLflowSink(logger, folder) if isinstance(logger, MLFlowLogger) else None
