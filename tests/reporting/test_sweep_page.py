import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reporting.test_page import EVIL, Page
from tests.trials import begun, failed, finished, pruned
from thaw.reporting import sweep_charts
from thaw.reporting.sweep_page import Sweep, numbers, render_sweep, report_link, sentence
from thaw.runs.trials import read_trials


def a_sweep(folder: Path) -> Sweep:
    """Six trials that ended in every way."""
    finished(folder, 0, 0.5, "lr=1", "sweep=plans", seconds=1, curve=(0.25, 0.5))
    finished(folder, 1, 0.75, "lr=2", "sweep=plans", seconds=9, curve=(0.25, 0.75))
    failed(folder, 2, "no memory", "lr=3", "sweep=plans", "~callbacks.speed", "logger.password=x")
    failed(folder, 3, "no memory", "lr=4")
    pruned(folder, 4, 0.125, "behind", "lr=5", curve=(0.125, 0.0))
    begun(folder, 10, "lr=6")
    trials = read_trials(folder)
    table = [["trial", "lr", "status"], *([t.name, t.overrides["lr"], t.state] for t in trials)]
    return Sweep(folder, trials, table, importance={"lr": 1.0})


def rendered(sweep: Sweep) -> tuple[str, Page]:
    html = render_sweep(sweep, sweep.folder)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert "https://" not in html
    assert all(a["src"].startswith("data:image/") for _, a in page.tags if "src" in a)
    return html, page


def test_the_page_says_what_came_out_the_best_trial_first(tmp_path: Path) -> None:
    html, page = rendered(a_sweep(tmp_path))
    counted = "6 trials: 2 finished, 2 failed, 1 pruned, 1 unfinished."
    assert f"{counted} Trial 1 is the best: m/val is 0.7500 with lr=2, 0.2500 ahead of trial 0." in html
    assert [row[0] for row in page.rows[1:7]] == ["1", "0", "2", "3", "4", "10"]
    assert page.sections() == {"trials", "choices", "importance", "cost", "learning", "failed", "pruned"}
    assert sum(tag == "img" for tag, _ in page.tags) == 4
    assert ["4", "0.1250", "2", "behind"] in page.rows


def test_failed_trials_are_shown_by_message_with_commands_that_can_be_typed(tmp_path: Path) -> None:
    html, _ = rendered(a_sweep(tmp_path))
    assert html.count("no memory") == 1
    assert "Trials 2, 3" in html
    first = "python -m thaw.train lr=3 &#39;~callbacks.speed&#39; &#39;logger.password=***&#39;"
    assert f"{first}\n\npython -m thaw.train lr=4</pre>" in html


def test_a_trial_leads_to_its_report_from_wherever_the_page_lies(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path / "runs/a sweep")
    (sweep.folder / "0/report.html").touch()
    _, page = rendered(sweep)
    assert {a["href"] for tag, a in page.tags if tag == "a" and "#" not in a["href"]} == {"0/report.html"}
    assert report_link(sweep.trials[0], tmp_path / "else") == "../runs/a%20sweep/0/report.html"
    assert report_link(sweep.trials[1], tmp_path / "else") == ""


def test_what_there_is_not_is_left_out(tmp_path: Path) -> None:
    begun(tmp_path, 0, "lr=1")
    missing = Sweep(tmp_path, read_trials(tmp_path), [["trial", "status"], ["0", "unfinished"]])
    html, page = rendered(missing)
    assert page.sections() == {"trials"}
    assert "1 trial: 1 unfinished. None has a result." in html
    html, page = rendered(replace(missing, no_importance="it needs 4", recalls=[["class", "tested"], ["cat", "9"]]))
    assert page.sections() == {"trials", "importance", "classes"}
    assert "It is not shown: it needs 4." in html
    assert ["cat", "9"] in page.rows
    html, _ = rendered(Sweep(tmp_path, [], [["trial", "status"]]))
    assert "0 trials. None has a result." in html


def test_over_seeds_alone_there_are_no_choices_to_show(tmp_path: Path) -> None:
    for seed in (0, 1):
        finished(tmp_path, seed, 0.5 + seed / 4, f"seed={seed}", curve=(0.25, 0.5))
    _, page = rendered(Sweep(tmp_path, read_trials(tmp_path), [["trial"], ["0"], ["1"]]))
    assert page.sections() == {"trials", "learning"}


@pytest.mark.parametrize(
    ("scores", "keys", "said"),
    [
        ((0.5,), ("seed",), "Trial 0 is the best: m/val is 0.5000."),
        ((0.5, 0.75), ("lr",), "Trial 1 is the best: m/val is 0.7500 with lr=1, 0.2500 ahead of trial 0."),
        ((0.5, 0.5, 0.5), ("lr",), "Trial 0 is the best: m/val is 0.5000 with lr=0, as it is in trial 1, 2."),
        (
            (0.5, 0.75, 1.0),
            ("seed", "data.fold"),
            "m/val is 0.7500 ± 0.2500, mean and standard deviation of 3 trials that differ in seed and data.fold.",
        ),
        (
            (0.5, 0.75),
            ("seed", "lr"),
            "Trial 1 is the best: m/val is 0.7500 with seed=1 lr=1, 0.2500 ahead of trial 0.",
        ),
    ],
)
def test_the_sentence(tmp_path: Path, scores: tuple[float, ...], keys: tuple[str, ...], said: str) -> None:
    for number, score in enumerate(scores):
        finished(tmp_path, number, score, *(f"{key}={number}" for key in keys))
    trials = read_trials(tmp_path)
    number = f"{len(scores)} trial{'s' if len(scores) > 1 else ''}: {len(scores)} finished."
    assert sentence(trials) == f"{number} {said}"


@pytest.mark.parametrize(("mode", "best"), [("max", "lr=2"), ("min", "lr=1")])
def test_choices_that_are_repeated_with_other_seeds_are_compared_by_their_means(
    tmp_path: Path, mode: str, best: str
) -> None:
    for number, (rate, score) in enumerate(
        [(1, 0.0), (1, 1.0), (2, 0.5), (2, 0.75)]
    ):  # the best trial is of the worse rate
        finished(tmp_path, number, score, f"lr={rate}", f"seed={number % 2}", mode=mode)
    trials = read_trials(tmp_path)
    means = {"lr=1": "0.5000 ± 0.7071", "lr=2": "0.6250 ± 0.1768"}
    other = next(choice for choice in means if choice != best)
    html, page = rendered(Sweep(tmp_path, trials, [["trial"], *([trial.name] for trial in trials)]))
    said = f"{best} is the best: m/val is {means[best]}, mean and standard deviation of 2 trials that differ in seed"
    assert f"{said}, 0.1250 ahead of {other}." in html
    assert [row[:2] for row in page.rows[1:3]] == [[best, means[best]], [other, means[other]]]
    assert page.rows[1][3:] == ["2.5 s", "2"]
    assert f"It is not clearly better than {other} (2.5 s a trial); it takes 2.5 s." in html
    assert numbers(trials)[0] == ("mean m/val", means[best].split()[0], f"± {means[best].split()[2]} in 2 trials")
    assert numbers(trials)[2] == ("trials finished", "4 of 4", "")


def test_a_picture_that_cannot_be_drawn_leaves_the_page_and_the_other_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_charts, "pareto", lambda *_: 1 / 0)
    html, page = rendered(a_sweep(tmp_path))
    assert "A picture was not drawn (cost): ZeroDivisionError: division by zero" in html
    assert page.sections() >= {"choices", "learning"}
    assert "cost" not in page.sections()


def test_damaged_curves_of_one_trial_leave_those_of_the_others(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path)
    (tmp_path / "0/metrics.csv").write_text("epoch,m/val\n0,half a num\n")
    pictures, failures = sweep_charts.sweep_charts(sweep.trials, {})
    assert failures == []
    assert "learning" in [picture.section for picture in pictures]


def test_names_and_messages_are_shown_and_never_run(tmp_path: Path) -> None:
    finished(tmp_path, 0, 0.5, f"name={EVIL}")
    failed(tmp_path, 1, f"{EVIL}\udcff", "name=b", f"more={EVIL}")
    trials = read_trials(tmp_path)
    sweep = Sweep(tmp_path, trials, [["trial", EVIL], ["0", EVIL], ["1", f"{EVIL}\udcff"]], recalls=[[EVIL], [EVIL]])
    html, page = rendered(sweep)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert "<script>alert" not in html
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert json.loads((tmp_path / "0/overrides.json").read_text()) == [f"name={EVIL}"]
