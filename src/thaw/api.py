"""thaw from Python, such as a notebook: what the commands do, with choices as a mapping. See docs/notebook.md."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thaw.config.command import logging_to_console
from thaw.config.composition import composed
from thaw.distributed.launch import starts_processes
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.export import export
from thaw.predict import predict
from thaw.runs.files import REPORT_FILE
from thaw.runs.folder import RunFolder
from thaw.train import train
from thaw.types import TokenSpec

Paths = str | Path
TEXT_COLUMN = "text"


class Run:
    """A run that has ended, known by its folder.

    Args:
        path: the run folder.
        trust: whether what the folder names is called, whatever it is; for folders of people you trust.

    Raises:
        UserError: it is no folder of a run that has ended.
    """

    def __init__(self, path: Paths, trust: bool = False):
        self.path, self.trust = Path(path).resolve(), trust
        self._folder = RunFolder(self.path)
        if not self._folder.metrics():
            raise UserError(f"{path} is no folder of a run that has ended: thaw.fit(...) makes one")

    @property
    def metrics(self) -> dict[str, float]:
        """Final metrics by name, such as `accuracy/test`."""
        return self._folder.metrics()

    @property
    def report(self) -> Path:
        """The report: one HTML file."""
        return self.path / REPORT_FILE

    def predict(self, inputs: Paths | Sequence[Paths], **choices: Any) -> list[dict[str, Any]]:
        """Predict classes, labels or numbers of images or texts.

        Args:
            inputs: what `input=` of `python -m thaw.predict` takes (an image, a folder, a glob, a table, a text), or a
                list of image files or of texts.
            choices: other keys of that command, such as `top_k=3` or `calibrate=True`.

        Returns:
            What the command writes of each usable sample: `path` (texts: `row` from 1, and `text`), and what the task
            says of it: `label`, `confidence`, `top` (the likeliest classes) and `probabilities` by class; `labels` and
            `probabilities`; or `values` by quantity. `pandas.DataFrame` takes it.
        """
        with tempfile.TemporaryDirectory() as folder:
            if not isinstance(inputs, str | Path):
                choices = {**self._listed(inputs, Path(folder)), "output": self.path / "predictions_list", **choices}
                inputs = choices.pop("input")
            with composed("predict", {"run": self.path, "trust": self.trust, "input": inputs, **choices}) as cfg:
                file = predict(cfg)
        with file.with_suffix(".jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def _listed(self, inputs: Sequence[Paths], folder: Path) -> dict[str, Any]:
        """Write a list of samples into a file; the choices of `predict` that read it."""
        if isinstance(self._folder.input_spec(), TokenSpec):
            file = folder / "texts.jsonl"
            file.write_text("".join(json.dumps({TEXT_COLUMN: str(text)}) + "\n" for text in inputs), encoding="utf-8")
            return {"input": file, "column": TEXT_COLUMN}
        file = folder / "images.txt"
        lines = (str(Path(path).expanduser().absolute()) for path in inputs)
        file.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
        return {"input": file}

    def evaluate(self, **choices: Any) -> dict[str, float]:
        """Measure the run again; `choices` are keys of `python -m thaw.evaluate`, such as `split="val"`."""
        with composed("evaluate", {"run": self.path, "trust": self.trust, **choices}) as cfg:
            return evaluate(cfg)

    def export(self, **choices: Any) -> Path:
        """Write a file to give away; `choices` are keys of `python -m thaw.export`, such as `format="onnx"`."""
        with composed("export", {"run": self.path, "trust": self.trust, **choices}) as cfg:
            return export(cfg)

    def __repr__(self) -> str:
        return f"thaw.Run({str(self.path)!r})"


def fit(choices: Mapping[str, Any] | None = None, config_dir: Paths | None = None) -> Run:
    """Fine-tune a network, as `python -m thaw.train` does, and return the run.

    Args:
        choices: what is typed after the command, as values by key: `{"data": "image_folder", "data.root": "photos"}`.
        config_dir: folder of more YAML files, as `--config-dir` names it.

    Raises:
        UserError: something does not fit; the message says what to choose instead.
    """
    with composed("train", choices or {}, config_dir) as cfg, logging_to_console():
        if starts_processes(cfg):
            raise UserError(
                "only a command starts several processes: type python -m thaw.train, or choose trainer.devices=1"
            )
        train(cfg)
        return Run(cfg.run_folder)
