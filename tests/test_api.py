"""thaw from Python: docs/notebook.md as it stands there, choices as on the command line, and errors."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from sklearn.datasets import load_digits

import thaw
from tests.conftest import TINY
from thaw.api import Run, fit
from thaw.config.conf_folder import CONF
from thaw.errors import UserError

PAGE = (CONF.parent / "docs" / "notebook.md").read_text(encoding="utf-8")


def tiny(**choices: object) -> dict[str, object]:
    typed = {key: yaml.safe_load(value) if value else None for key, _, value in (word.partition("=") for word in TINY)}
    return {**typed, "data.labels_per_class": 3, "freezing": "head_only", "freezing.epochs": 1, **choices}


@pytest.mark.run
def test_the_page_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    for name, number in (("seven", 7), ("three", 3)):
        Image.fromarray(np.uint8(digits.images[number] * 15)).save(f"{name}.png")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    run, rows = names["run"], names["rows"]
    assert isinstance(run, Run)
    assert isinstance(rows, list)
    assert run.report.is_file()
    assert run.metrics["accuracy/test"] > 0.8
    assert [(Path(row["path"]).name, row["label"]) for row in rows] == [("seven.png", "7"), ("three.png", "3")]
    assert rows[0]["probabilities"]["7"] == rows[0]["confidence"]
    assert list(run.path.glob("export/*/model.safetensors"))
    assert json.loads((run.path / "evaluate_val.json").read_text())["accuracy/val"] == run.metrics["accuracy/val"]


def test_choices_count_as_typed(tmp_path: Path) -> None:
    run = fit(tiny(run_folder=tmp_path / "a run", **{"+trainer.limit_train_batches": 1}))
    assert "+trainer.limit_train_batches=1" in json.loads((run.path / "overrides.json").read_text())
    assert repr(Run(run.path)) == f"thaw.Run('{tmp_path / 'a run'}')"
    with pytest.raises(UserError, match=r"not with optimizer\.lr=0\.1"):  # and not ignored
        fit({"resume": run.path, "optimizer.lr": 0.1})
    assert not HydraConfig.initialized()


def test_lists_of_texts_are_classified(tmp_path: Path) -> None:
    table = tmp_path / "reviews.csv"
    rows = [f"{word} film {number},{label}" for word, label in (("good", "yes"), ("bad", "no")) for number in range(12)]
    table.write_text("\n".join(["text,label", *rows]))
    texts = {"data": "text_table", "data.table": table, "backbone": "gru", "freezing": "full", "freezing.epochs": 1}
    quiet = {"logger": "none", "report": False, "~callbacks.progress_bar": None, "+trainer.enable_progress_bar": False}
    run = fit({**texts, **quiet, "run_folder": tmp_path / "run"})
    found = run.predict(["good\nfilm", "bad, really"], top_k=1)
    assert [(row["row"], row["text"], len(row["top"])) for row in found] == [
        (1, "good\nfilm", 1),
        (2, "bad, really", 1),
    ]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"freezing": "melt"}, "freezing=melt is none of"),
        ({"optimizer.lrr": 3}, "Did you mean optimizer.lr"),
        ({"+colour": "red"}, "nothing reads colour"),
        ({"freezing.epochs": -1}, "freezing.epochs is a whole number"),
        ({"trainer.devices": 2}, "only a command starts several processes"),
    ],
)
def test_errors_are_those_of_the_command(choices: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        fit(tiny(run_folder=tmp_path / "run", **choices))
    assert not (tmp_path / "run").exists()
    assert not HydraConfig.initialized()


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder of a run that has ended"):
        thaw.Run(tmp_path)
    with pytest.raises(AttributeError, match="melt"):
        _ = thaw.melt
