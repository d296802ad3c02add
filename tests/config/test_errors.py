"""docs/errors.md says what wrong commands are met with; here each of them is typed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra import compose, initialize_config_dir

from tests.commands import refused
from tests.conftest import TINY
from tests.photos import photos
from thaw.config.conf_folder import CONF
from thaw.train import train

REPOSITORY = Path(__file__).parents[2]
QUIET = ("~", "logger", "report", "+trainer", "trainer")
"""Beginnings of those choices of TINY that are not about data and network."""
PAGE = (REPOSITORY / "docs/errors.md").read_text(encoding="utf-8")
AT_ONCE, LATER = PAGE.split("\n# ")[1:]


class Mistake(NamedTuple):
    """A command and what it is met with; `...` stands for words that depend on the machine."""

    command: str
    message: str


def mistakes(part: str) -> list[Mistake]:
    """The examples of a part of the page: a line with `$` and the command, and lines with the message."""
    blocks = re.findall(r"^\$ (.+)\n((?:(?!\$ |```).+\n)+)", part, re.MULTILINE)
    return [Mistake(command, " ".join(message.split())) for command, message in blocks]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with photographs, texts, and runs."""
    folder = tmp_path_factory.mktemp("place")
    photos(folder)
    words = {"good": "fine great lovely", "bad": "sad awful poor"}
    rows = [f"it was {word} {n},{label}" for n in range(10) for label, some in words.items() for word in some.split()]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    short = ["freezing=head_only", "freezing.epochs=1", *(word for word in TINY if word.startswith(QUIET))]
    digits, texts = folder / "runs/digits", folder / "runs/texts"
    from_table = ["data=text_table", f"data.table={folder / 'reviews.csv'}", "backbone=gru", "backbone.hidden_size=4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(compose("train", [*short, "data.labels_per_class=2", f"run_folder={digits}"]))
        train(compose("train", [*short, *from_table, f"run_folder={texts}"]))
    for name in ("0", "1"):
        shutil.copytree(digits, folder / "runs/sweep" / name)
    (folder / "runs/sweep/summary.md").write_text("best: trial 0\n")
    return folder


def fits(mistake: Mistake, message: str) -> bool:
    """Whether a message is the one that the page has."""
    pattern = ".*?".join(re.escape(part) for part in mistake.message.split("..."))
    return re.fullmatch(pattern, " ".join(message.split())) is not None


@pytest.mark.run  # half a minute: seventy commands
def test_mistakes_that_need_no_data_are_met_before_torch_is_loaded(place: Path) -> None:
    expected = mistakes(AT_ONCE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY / "src", REPOSITORY)))}
    command = [sys.executable, "-m", "tests.commands"]
    commands = json.dumps([mistake.command for mistake in expected])
    done = subprocess.run(command, cwd=place, env=environment, input=commands, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    messages, torch_is_loaded = json.loads(done.stdout)
    others = [(m.command, message) for m, message in zip(expected, messages, strict=True) if not fits(m, message)]
    assert others == []
    assert not torch_is_loaded
    assert len(messages) > 50


@pytest.mark.parametrize("mistake", mistakes(LATER), ids=lambda mistake: mistake.command.partition(" thaw.")[2])
def test_mistakes_about_data_and_network_are_met_with_one_message(
    mistake: Mistake, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [])
    message = refused(mistake.command)
    assert fits(mistake, message), f"$ {mistake.command}\n{message}"
    assert not [folder for folder in (place / "runs").iterdir() if folder.name.startswith("20")], "it left a run folder"
