"""Projects of one's own, of both kinds: what is made works, under its own name."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from thaw import __version__, new
from thaw.config.conf_folder import CONF
from thaw.errors import UserError
from thaw.new_project.renaming import files_below
from thaw.new_project.whole import PACKAGE

SOURCE = CONF.parent / "src"
LONG_NAME = f"snow_bird_of_the_{'south' if PACKAGE.endswith('north') else 'north'}"
"""Of a project that a test makes; in that project these tests run again, and its own name is taken there."""
OWN_TESTS = (
    "test_new.py",
    "test_rooms.py",
    "test_unsafe.py",
    "new_project",
    "config/test_conf_folder.py",
    "finetuning",
)

Config = Callable[..., DictConfig]


def made(config: Config, dest: Path, name: str, kind: str) -> Path:
    """The folder of a new project."""
    new.new(config(f"name={name}", f"kind={kind}", f"dest={dest}", name="new"))
    return dest / name


def python(folder: Path, *words: str, path: tuple[Path, ...] = ()) -> str:
    """Output of a command that must end well, in `folder`, with its own `src` on the path."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder / "src", *path)))}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def thin(config: Config, tmp_path: Path) -> Path:
    """A project that uses thaw."""
    return made(config, tmp_path, "birds", "thin")


@pytest.fixture
def whole(config: Config, tmp_path: Path) -> Path:
    """The template under another name."""
    pytest.importorskip("ruff")
    return made(config, tmp_path, LONG_NAME, "whole")


def test_a_thin_project_has_its_own_parts_and_needs_this_thaw(thin: Path) -> None:
    files = {file.as_posix() for file in files_below(thin)}
    assert files == {
        *(".gitignore", ".github/workflows/ci.yml", "Makefile", "README.md", "pyproject.toml"),
        *("conf/data/shapes.yaml", "conf/experiment/shapes.yaml"),
        *(f"src/birds/{name}.py" for name in ("__init__", "certainty", "shapes", "worst_recall")),
        *("tests/test_experiment.py", "tests/test_parts.py"),
    }
    assert not [file for file in files if "my_project" in (thin / file).read_text()]
    assert f'"lightning-thaw>={__version__}"' in (thin / "pyproject.toml").read_text()


def test_conf_of_a_thin_project_comes_first_with_nothing_typed_for_it(thin: Path) -> None:
    (thin / "conf/optimizer").mkdir()
    (thin / "conf/optimizer/adamw.yaml").write_text("_target_: torch.optim.SGD\nlr: 7\n")
    printed = python(thin, "-m", "thaw.train", "experiment=shapes", "--cfg", "job", path=(SOURCE,))
    for line in (
        "_target_: birds.shapes.Shapes",
        "_target_: birds.worst_recall.WorstRecall",
        "_target_: torch.optim.SGD",
    ):
        assert line in printed
    assert re.search(r"^optimizer:\n(  .*\n)*  lr: 7$", printed, re.MULTILINE)


def test_a_whole_project_has_no_word_of_the_old_name(whole: Path) -> None:
    files = files_below(whole)
    assert len(files) > 400
    assert not [file for file in files if PACKAGE in str(file).lower()]
    contents = {file: (whole / file).read_bytes() for file in files if not (whole / file).is_symlink()}
    assert not [file for file, content in contents.items() if PACKAGE.encode() in content.lower()]
    assert os.readlink(whole / f"src/{LONG_NAME}/conf") == "../../conf"
    assert not {".git", "runs"} & {file.parts[0] for file in files}


def test_a_whole_project_composes_every_plan_and_is_formatted(whole: Path) -> None:
    chain = ("freezing=chain_unfreeze", "experiment=digits_chain_unfreeze")
    printed = python(whole, "-m", f"{LONG_NAME}.train", "--cfg", "job", *chain)
    assert f"_target_: {LONG_NAME}.finetuning.plans.chain_unfreeze" in printed
    python(whole, "-m", "ruff", "format", "--no-cache", "--check", ".")
    python(whole, "-m", "ruff", "check", "--no-cache", ".")


def test_a_folder_that_is_there_or_in_the_clone_is_refused(config: Config, tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    with pytest.raises(UserError, match=r"birds exists already: type another name, or dest="):
        made(config, tmp_path, "birds", "thin")
    with pytest.raises(UserError, match=f"would be part of this clone of {PACKAGE}: type dest={CONF.parents[1]}"):
        made(config, CONF.parent / "docs", "birds", "thin")


def test_nothing_is_left_of_a_project_that_could_not_be_made(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *_: object) -> list[str]:
        (folder / "Makefile").touch()
        raise OSError("no room")

    monkeypatch.setattr(new, "make_thin", full)
    with pytest.raises(OSError, match="no room"):
        made(config, tmp_path / "dest", "birds", "thin")
    assert list((tmp_path / "dest").iterdir()) == []


@pytest.mark.run
def test_a_thin_project_lints_and_passes_its_own_tests_one_of_which_trains(thin: Path) -> None:
    python(thin, "-m", "ruff", "format", "--no-cache", "--check", ".")
    python(thin, "-m", "ruff", "check", "--no-cache", ".")
    assert " passed" in python(thin, "-m", "pytest", "-q", path=(SOURCE,))
    python(thin, "-m", "thaw.train", "experiment=shapes", "debug=fast_dev_run", "run_folder=run", path=(SOURCE,))
    assert (thin / "run/config.yaml").is_file()


@pytest.mark.run
def test_a_whole_project_keeps_its_rooms_trains_and_passes_tests_of_its_own(whole: Path) -> None:
    python(whole, "-c", "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])")
    python(whole, "-m", f"{LONG_NAME}.train", "debug=fast_dev_run", "run_folder=run")
    tests = [str(Path("tests", name)) for name in OWN_TESTS]
    assert " passed" in python(whole, "-m", "pytest", "-q", *tests)
