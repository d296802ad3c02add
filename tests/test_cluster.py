"""Trials on the launchers of conf/hydra/launcher, for real: grids, and searches in which a worker dies once."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from lightning import Callback, LightningModule, Trainer

from tests.conftest import TINY

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[1]
PLUGINS = {"submitit_slurm": "submitit", "submitit_local": "submitit", "ray": "ray", "joblib": "joblib"}


class DieOnce(Callback):
    """In the second epoch of trial 3 the process is killed; a job of SLURM is queued again, as if it were preempted."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        if folder.name != "3" or trainer.current_epoch != 1 or (folder.parent / "died").exists():
            return
        (folder.parent / "died").touch()
        if job := os.environ.get("SLURM_JOB_ID"):
            subprocess.run(["scontrol", "requeue", job], check=True)
            signal.pause()  # SLURM ends the job
        os.kill(os.getpid(), signal.SIGKILL)


def typed(folder: Path, *words: str) -> list[dict[str, str]]:
    """The table that a sweep leaves, without what a clock says."""
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    own = [word for word in TINY if not word.startswith("optimizer")]
    command = [sys.executable, "-m", "thaw.train", "-m", f"hydra.sweep.dir={folder}", *own, *words]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    with (folder / "summary.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """The tables of a grid and of a search in one process."""
    folder = tmp_path_factory.mktemp("here")
    return {"grid": typed(folder / "grid", *GRID), "search": typed(folder / "search", *SEARCH)}


GRID = ("freezing=full", "freezing.epochs=2", "optimizer.lr=1e-3,3e-3", "seed=1,2")
SEARCH = (
    *("sweep=search", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=6", "freezing=full", "freezing.epochs=3"),
    *("callbacks.pruning=null", "callbacks.checkpoint.last_every_seconds=0", "+callbacks.die=null"),
)


@pytest.mark.parametrize("launcher", PLUGINS)
def test_grids_and_searches_run_on_it_and_a_worker_may_die(
    tmp_path: Path, launcher: str, here: dict[str, list[dict[str, str]]]
) -> None:
    plugin = f"hydra_plugins.hydra_{PLUGINS[launcher]}_launcher"
    if find_spec(plugin) is None or (launcher == "submitit_slurm" and shutil.which("sinfo") is None):
        pytest.skip(f"{launcher} is not installed")
    chosen = [f"hydra/launcher={launcher}"]
    if launcher == "submitit_slurm":
        chosen += ["hydra.launcher.cpus_per_task=1"]
    assert typed(tmp_path / "grid", *GRID, *chosen) == here["grid"]
    dying = "+callbacks.die={_target_: tests.test_cluster.DieOnce}"
    search = [word for word in SEARCH if "callbacks.die" not in word]
    assert typed(tmp_path / "search", *search, dying, *chosen, "hydra.sweeper.n_jobs=2") == here["search"]
    assert (tmp_path / "search/died").exists()
