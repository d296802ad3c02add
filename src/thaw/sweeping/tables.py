"""Tables that compare the trials of a sweep."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from thaw.console import as_text
from thaw.runs.files import SUMMARY_FILE
from thaw.runs.groups import Group, groups, mean_rows, name_on_test, not_clearly_worse, spread
from thaw.runs.trials import FAILED, FINISHED, PRUNED, UNFINISHED, Trial, best, read_trials, varied
from thaw.sweeping.folds import read_folds, recall_table


def table(trials: Sequence[Trial], reasons: bool = True) -> list[list[str]]:
    """Build the header and one row per trial: name, what varied, status, best and test metrics, seconds.

    `reasons`: whether the status says why a trial failed or was pruned.
    """
    keys = varied(trials)
    all_results = [trial.results for trial in trials if trial.results]
    monitor = all_results[0]["monitor"] if all_results else "best"
    tested = sorted({name for results in all_results for name in results["metrics"] if name.endswith("/test")})
    rows = [["trial", *keys, "status", f"best {monitor}", "epoch", *tested, "seconds"]]
    for trial in trials:
        row = [trial.name, *(trial.overrides.get(key, "") for key in keys)]
        if (results := trial.results) is None:
            row += [trial.status if reasons else trial.state, "", "", *("" for _ in tested), ""]
        else:
            metrics = [f"{results['metrics'].get(name, float('nan')):.4f}" for name in tested]
            best_value = "" if results["best"] is None else f"{results['best']:.4f}"  # fast_dev_run monitors nothing
            epoch = "" if results["epoch"] is None else str(results["epoch"] + 1)  # shown from 1
            row += [FINISHED, best_value, epoch, *metrics, f"{results['seconds']:.1f}"]
        rows.append(row)
    return rows


def write_summary(sweep: Path, output: Path | None = None) -> str:
    """Write `summary.csv` and `summary.md` into `output`, the sweep's folder if it is None; return the Markdown.

    If the sweep goes over folds, the Markdown also has a table of the recall of each class.
    """
    trials = read_trials(sweep)
    rows = table(trials)
    tables = (rows, means(trials), recalls(trials))
    text = "\n\n".join([*(_markdown(rows) for rows in tables if rows), _verdict(trials)]) + "\n"
    folder = output or sweep
    (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
    with (folder / "summary.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
    return text


def shown_summary(trials: Sequence[Trial]) -> str:
    """The summary for a terminal, see `short_table`."""
    tables = (short_table(trials), means(trials), recalls(trials))
    return "".join([*(_drawn(rows) for rows in tables if rows), _verdict(trials)])


def short_table(trials: Sequence[Trial], reasons: bool = True) -> list[list[str]]:
    """Build the rows of `table` with only the monitored one of the test metrics."""
    rows = table(trials, reasons)
    monitored = next((trial.results["monitor"].partition("/")[0] for trial in trials if trial.results), "")
    shown = [i for i, name in enumerate(rows[0]) if not name.endswith("/test") or name == f"{monitored}/test"]
    return [[row[i] for i in shown] for row in rows]


def means(trials: Sequence[Trial]) -> list[list[str]]:
    """Build a table of means over seeds and folds, and of methods that train no network; no rows if none repeat."""
    found = mean_rows(trials)
    if not found:
        return []
    metric = groups(trials)[0].metric
    rows = [["choice", f"best {metric}", name_on_test(metric), "seconds", "trials"]]
    for row in found:
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        count = str(len(row.values or row.test_values))
        rows.append([row.name, spread(row.values), spread(row.test_values), seconds, count])
    return rows


def recalls(trials: Sequence[Trial]) -> list[list[str]]:
    """Build a table of the recall of each class, see `recall_table`; no rows if the trials go over no folds."""
    finished = [trial for trial in trials if trial.results]
    keys = varied(finished)
    return recall_table(read_folds({trial.folder: trial.choices(keys) for trial in finished}))


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _drawn(rows: list[list[str]]) -> str:
    from rich.markup import escape  # here, because a wrong command need not wait for it
    from rich.table import Table

    table = Table(*map(escape, rows[0]))
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    return as_text(table)


def _best_mean(found: Sequence[Group]) -> list[str]:
    """What is best on average, and what is not clearly worse; nothing if there are no two choices to compare."""
    if len(found) < 2:
        return []
    text = f"best mean: {found[0].choice}, {found[0].metric} = {spread(found[0].values)}"
    level = [f"{group.choice} ({group.seconds:.0f} s a trial)" for group in not_clearly_worse(found)]
    return [f"{text}, not clearly better than {', '.join(level)}" if level else text]


def _verdict(trials: Sequence[Trial]) -> str:
    if not trials:
        return "no trial has left anything here"
    ended = Counter(trial.state for trial in trials if trial.state != FINISHED)
    winner = best(trials)
    if winner is None or winner.results is None:
        return f"all {len(trials)} trials failed" if ended[FAILED] == len(trials) else "no trial has a result yet"
    text = f"best: trial {winner.name}, {winner.results['monitor']} = {winner.results['best']:.4f}"
    if choices := winner.choices(varied(trials)):
        text += f" ({' '.join(f'{key}={value}' for key, value in choices.items())})"
    same = [t.name for t in trials if t is not winner and t.results and t.results["best"] == winner.results["best"]]
    text += f", equalled by trial {', '.join(same)}" if same else ""
    words = {FAILED: "failed", PRUNED: "were pruned", UNFINISHED: "have not ended"}
    others = [f"{ended[state]} of {len(trials)} trials {word}" for state, word in words.items() if ended[state]]
    return "; ".join([*_best_mean(groups(trials)), text, *others])
