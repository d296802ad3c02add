"""The experiment, shortened: it trains, and its parts are used."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
SHORT = (
    "data.num_samples=120",
    "freezing=head_only",
    "freezing.epochs=1",
    "trainer.accelerator=cpu",
    "report=false",
    "logger=none",
)


def test_the_experiment_trains_with_the_parts_of_this_project(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "thaw.train", "experiment=shapes", *SHORT, f"run_folder={run}"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "worst_recall/test" in json.loads((run / "metrics.json").read_text())["metrics"]
    assert list(run.glob("pictures/certainty/*.png"))
