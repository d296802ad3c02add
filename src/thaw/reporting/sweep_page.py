"""The page of a sweep as one HTML file: which trial is best, and what the choices did."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple
from urllib.parse import quote

from thaw.errors import UserError
from thaw.reporting.sweep_charts import monitored, sweep_charts
from thaw.reporting.templates import filled
from thaw.reporting.train_command import train_command
from thaw.reporting.wording import decimals, duration, enumerate_names
from thaw.runs.files import REPORT_FILE
from thaw.runs.groups import Group, choices_as_typed, groups, mean_rows, name_on_test, not_clearly_worse, spread
from thaw.runs.trials import FAILED, FINISHED, PRUNED, UNFINISHED, Trial, is_repeat, ranked, typed_overrides, varied

STATES = {FINISHED: "finished", FAILED: "failed", PRUNED: "pruned", UNFINISHED: "unfinished"}
"""States of trials as the page calls them, in its order."""
OF_THE_SEARCH = ("sweep=", "callbacks.pruning")
"""Beginnings of overrides that only a sweep reads."""


@dataclass(frozen=True)
class Sweep:
    """What the page shows. What is empty is left out of it."""

    folder: Path
    trials: Sequence[Trial]
    table: Sequence[Sequence[str]]
    """A header, and a row for each trial that begins with its name."""
    recalls: Sequence[Sequence[str]] = ()
    """A header and a row for each class, if the trials go over folds."""
    importance: Mapping[str, float] = field(default_factory=dict)
    """Share of the variance of the metric that each choice explains."""
    no_importance: str = ""
    """Why there is none."""


class Number(NamedTuple):
    """A figure at the top of the page."""

    name: str
    value: str
    note: str = ""


class Failure(NamedTuple):
    """Trials that failed with the same message."""

    message: str
    names: list[str]
    commands: list[str]
    """One for each trial whose overrides can be read."""


def render_sweep(sweep: Sweep, output: Path) -> str:
    """Return the text of the HTML file, which links to the reports of trials as seen from the folder `output`."""
    pictures, warnings = sweep_charts(sweep.trials, sweep.importance)
    finished = ranked(sweep.trials)
    rows = {row[0]: row for row in sweep.table[1:]}
    ordered = [*finished, *(trial for trial in sweep.trials if trial not in finished)]
    found = monitored(sweep.trials)
    return filled(
        "sweep.html.jinja",
        name=sweep.folder.resolve().name,
        metric=found[0] if found else "",
        mode=found[1] if found else "",
        seconds=sum(trial.results["seconds"] for trial in finished if trial.results),
        sentence=sentence(sweep.trials),
        warnings=warnings,
        numbers=numbers(sweep.trials),
        means=means(sweep.trials),
        columns=sweep.table[0],
        rows=[(report_link(trial, output), rows[trial.name]) for trial in ordered],
        best_command=_command(finished[0]) if finished else "",
        pictures=pictures,
        no_importance=sweep.no_importance,
        recalls=sweep.recalls,
        failures=failures(sweep.trials),
        pruned=[trial for trial in sweep.trials if trial.state == PRUNED],
    )


def sentence(trials: Sequence[Trial]) -> str:
    """How many trials there are, and what came out: the best one, or the best mean over seeds or folds."""
    states = Counter(trial.state for trial in trials)
    counted = ", ".join(f"{states[state]} {word}" for state, word in STATES.items() if states[state])
    number = f"{len(trials)} trial{'s' if len(trials) != 1 else ''}"
    return f"{number}{': ' if counted else ''}{counted}. {_result(trials)}"


def _result(trials: Sequence[Trial]) -> str:
    finished = ranked(trials)
    if not finished:
        return "None has a result."
    if repeated := groups(trials):
        return _best_mean(repeated, [key for key in varied(trials) if is_repeat(key)])
    values = _values(finished)
    best, *others = finished
    chosen = choices_as_typed(best, varied(trials))
    text = (
        f"Trial {best.name} is the best: {_metric(best)} is {decimals(values[0])}{f' with {chosen}' if chosen else ''}"
    )
    if same := [trial.name for trial, value in zip(others, values[1:], strict=True) if value == values[0]]:
        return f"{text}, as it is in trial {enumerate_names(same)}."
    return f"{text}, {decimals(abs(values[0] - values[1]))} ahead of trial {others[0].name}." if others else f"{text}."


def _best_mean(repeated: Sequence[Group], keys: Sequence[str]) -> str:
    best, *others = repeated
    lead = f"{best.choice} is the best: " if best.choice else ""
    about = f"mean and standard deviation of {len(best.trials)} trials that differ in {' and '.join(keys)}"
    text = f"{lead}{best.metric} is {spread(best.values, decimals)}, {about}"
    if not others:
        return f"{text}."
    text += f", {decimals(abs(best.mean - others[0].mean))} ahead of {others[0].choice}."
    level = not_clearly_worse(repeated)
    named = [f"{group.choice} ({duration(group.seconds)} a trial)" for group in level]
    more = f" It is not clearly better than {enumerate_names(named)}; it takes {duration(best.seconds)}."
    return text + (more if level else "")


def means(trials: Sequence[Trial]) -> list[tuple[str, list[tuple[str, float | str]]]]:
    """Names of the rows of a table of means; and of each cell its text, and what to sort by."""
    rows: list[tuple[str, list[tuple[str, float | str]]]] = []
    for row in mean_rows(trials):
        scores = [(spread(found, decimals), mean(found) if found else "") for found in (row.values, row.test_values)]
        time = ("", "") if row.seconds is None else (duration(row.seconds), row.seconds)
        count = len(row.values or row.test_values)
        rows.append((row.name, [*scores, time, (str(count), count)]))
    return rows


def numbers(trials: Sequence[Trial]) -> list[Number]:
    """The best metric or mean, the same on test, how many trials finished, and how long one takes."""
    finished = ranked(trials)
    if not finished:
        return []
    repeated = groups(trials)
    best = repeated[0] if repeated else Group("", _metric(finished[0]), {"": finished[0]})
    word, note = ("mean", f"in {len(best.trials)} trials") if repeated else ("best", f"trial {finished[0].name}")
    metric = _metric(finished[0])
    shown = [_card(f"{word} {metric}", spread(best.values, decimals), note)]
    if best.test_values:
        shown.append(_card(name_on_test(metric), spread(best.test_values, decimals), note))
    shown.append(Number("trials finished", f"{len(finished)} of {len(trials)}"))
    seconds = [trial.results["seconds"] for trial in finished if trial.results]
    return [*shown, Number("time of a trial", duration(median(seconds)), "median")]


def _card(name: str, text: str, note: str) -> Number:
    """A mean as a figure, with its deviation in the note."""
    value, _, deviation = text.partition(" ± ")
    return Number(name, value, f"± {deviation} {note}" if deviation else note)


def report_link(trial: Trial, output: Path) -> str:
    """Where the report of a trial lies, as seen from the folder `output`; empty if it has none."""
    file = trial.folder / REPORT_FILE
    return quote(os.fsencode(os.path.relpath(file, output))) if file.is_file() else ""


def failures(trials: Sequence[Trial]) -> list[Failure]:
    """The failed trials by their message, each with the command that runs it alone."""
    found: dict[str, Failure] = {}
    for trial in trials:
        if trial.state == FAILED:
            failure = found.setdefault(trial.message, Failure(trial.message, [], []))
            failure.names.append(trial.name)
            failure.commands.extend(filter(None, [_command(trial)]))
    return list(found.values())


def _command(trial: Trial) -> str:
    """The command that runs a trial alone; empty if its overrides cannot be read."""
    with suppress(UserError):
        if typed := typed_overrides(trial.folder):
            return train_command(override for override in typed if not override.startswith(OF_THE_SEARCH))
    return ""


def _values(finished: Sequence[Trial]) -> list[float]:
    return [trial.results["best"] for trial in finished if trial.results]


def _metric(finished: Trial) -> str:
    assert finished.results is not None
    return finished.results["monitor"]
