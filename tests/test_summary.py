"""`python -m thaw.summary` at any time of a sweep."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.commands import refused
from tests.reporting.test_page import Page
from tests.trials import begun, failed, finished
from thaw.config import sweep_summary
from thaw.errors import UserError
from thaw.runs.trials import require_sweep
from thaw.summary import summary

FILES = {"summary.csv", "summary.md", "summary.png", "sweep.html"}


def a_sweep(folder: Path) -> Path:
    finished(folder, 0, 0.5, "lr=1")
    finished(folder, 1, 0.75, "lr=2")
    begun(folder, 2, "lr=3")
    return folder


def test_a_sweep_that_runs_is_printed_and_written_and_its_trials_stay_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = a_sweep(tmp_path / "runs/grid")
    before = sorted(sweep.rglob("*"))
    assert summary(OmegaConf.create({"folder": str(sweep), "output": None})) == sweep
    assert {file.name for file in sweep.iterdir() if file not in before} == FILES
    assert set(before) <= set(sweep.rglob("*"))
    printed = capsys.readouterr().out
    assert "best: trial 1, m/val = 0.7500 (lr=2); 1 of 3 trials have not ended" in printed
    assert printed.splitlines()[-2:] == [f"summary: {sweep}/summary.md", f"page: {sweep}/sweep.html"]
    html = (sweep / "sweep.html").read_text()
    assert [row[0] for row in Page(html).rows] == ["trial", "1", "0", "2"]
    assert "It is not shown: it needs 4 finished trials, and there are 2." in html


def test_another_folder_gets_the_files_and_the_page_leads_back(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path / "runs/grid")
    (sweep / "1/report.html").touch()
    summary(OmegaConf.create({"folder": str(sweep), "output": str(tmp_path / "else/here")}))
    assert {file.name for file in (tmp_path / "else/here").iterdir()} == FILES
    assert not FILES & {file.name for file in sweep.iterdir()}
    assert 'href="../../runs/grid/1/report.html"' in (tmp_path / "else/here/sweep.html").read_text()


@pytest.mark.parametrize("part", ["page", "picture"])
def test_what_cannot_be_drawn_is_one_line_and_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    sweep = a_sweep(tmp_path)
    monkeypatch.setattr(sweep_summary, part, lambda *_, **__: 1 / 0)
    assert len(sweep_summary.summarise(sweep)) == 3
    missing = {"page": "sweep.html", "picture": "summary.png"}[part]
    assert f"{missing} was not written: ZeroDivisionError: division by zero" in capsys.readouterr().out
    assert {file.name for file in sweep.iterdir() if file.is_file()} == FILES - {missing}


def test_a_fault_of_optuna_is_a_sentence_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_summary, "importance", lambda _: 1 / 0)
    sweep_summary.summarise(a_sweep(tmp_path))
    assert "It is not shown: ZeroDivisionError: division by zero." in (tmp_path / "sweep.html").read_text()


def test_sweeps_without_a_result_have_a_page(tmp_path: Path) -> None:
    failed(tmp_path, 0, "no data", "lr=1")
    sweep_summary.summarise(tmp_path)
    assert "1 trial: 1 failed. None has a result." in (tmp_path / "sweep.html").read_text()
    assert not (tmp_path / "summary.png").exists()


def test_what_is_no_sweep_is_met_with_one_message_that_says_what_to_type(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    sweep = a_sweep(runs / "grid")
    for run in (runs / "alone", sweep / "0"):
        run.mkdir(exist_ok=True)
        (run / "config.yaml").touch()
    (tmp_path / "empty").mkdir()
    made = "name the folder of a sweep, which python -m thaw.train -m ... made"
    for path, message in {
        runs / "nowhere": f"{runs}/nowhere does not exist: name the folder of a sweep, such as {sweep}",
        tmp_path / "nowhere": f"{tmp_path}/nowhere does not exist: {made}",
        sweep / "0/config.yaml": f"{sweep}/0/config.yaml is a file: {made}",
        sweep / "0": f"{sweep}/0 is the folder of one run: type folder={sweep}",
        runs / "alone": f"{runs}/alone is the folder of one run: its page is {runs}/alone/report.html",
        runs: f"{runs} is no sweep, but holds 1 of them: name one, such as {sweep}",
        tmp_path / "empty": f"{tmp_path}/empty holds no trials: {made}",
    }.items():
        with pytest.raises(UserError) as raised:
            require_sweep(path)
        assert str(raised.value) == message
    assert require_sweep(sweep) == sweep
    assert (
        refused(f"python -m thaw.summary folder={tmp_path}/nowhere")
        == f"error: {tmp_path}/nowhere does not exist: {made}"
    )
    assert refused("python -m thaw.summary") == "error: folder is missing: type folder=..."
    said = refused(f"python -m thaw.summary sweep={tmp_path}/nowhere")
    assert said == f"error: {tmp_path}/nowhere does not exist: {made}"
