"""`make train seed=3`: what is typed after a target reaches the command."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["train"], "thaw.train"),
        (["train", "freezing=gradual"], "thaw.train freezing=gradual"),
        (["train", "ARGS=-m seed=1,2", "optimizer.lr=1e-3"], "thaw.train -m seed=1,2 optimizer.lr=1e-3"),
        (["sweep"], "thaw.train -m sweep=plans"),
        (["sweep", "seed=1,2"], "thaw.train -m seed=1,2"),
        (["predict", "input=two words"], r"thaw.predict input=two\ words"),
    ],
)
def test_overrides_follow_the_target(typed: list[str], command: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "ARGS"}
    make = ["make", "--no-print-directory", "-n", *typed]
    done = subprocess.run(make, cwd=REPOSITORY, env=own, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].rstrip().endswith(f"-m {command}")
