"""`make train seed=3`: what is typed after a target reaches the command."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from thaw.new_project.thin import TEMPLATE

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
        (["new", "NAME=birds"], "thaw.new name=birds dest=.."),
        (["new", "NAME=birds", "DEST=/there", "kind=whole"], "thaw.new name=birds dest=/there kind=whole"),
    ],
)
def test_overrides_follow_the_target(typed: list[str], command: str) -> None:
    ends_with(command, typed, REPOSITORY)


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["train"], "thaw.train experiment=shapes"),
        (["train", "experiment=mine", "THAW=../there"], "thaw.train experiment=mine"),
        (["train", "seed=3"], "thaw.train experiment=shapes seed=3"),
        (["check"], "thaw.check data=shapes"),
        (["check", "data=digits"], "thaw.check data=digits"),
        (["install", "THAW=../there"], 'pip install --quiet "../there" -e ".[dev]"'),
    ],
)
def test_a_project_of_ones_own_has_choices_that_can_be_typed_over(typed: list[str], command: str) -> None:
    ends_with(command, typed, TEMPLATE)


def ends_with(command: str, typed: list[str], folder: Path) -> None:
    """Fail unless `command` is the last that `make` would run."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "ARGS", "VENV"))}
    make = ["make", "--no-print-directory", "-n", *typed]
    done = subprocess.run(make, cwd=folder, env=own, capture_output=True, text=True, check=True)
    commands = [line for line in done.stdout.splitlines() if not line.startswith("touch")]
    assert " ".join(commands[-1].split()).endswith(f"-m {command}")
