"""The order of the rooms, which import-linter holds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")

REPOSITORY = Path(__file__).parents[1]


def lint_imports(folder: Path, source: Path) -> tuple[int, str]:
    """Exit code and output of `lint-imports` in `folder`, with the contracts of this repository for `source`/thaw."""
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_room_imports_only_from_those_below_it(tmp_path: Path) -> None:
    code, printed = lint_imports(tmp_path, REPOSITORY / "src")
    assert code == 0, printed
    assert "0 broken" in printed


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("data/splits.py", "import thaw.config.build", "thaw.data is not allowed to import thaw.config"),
        (
            "models/network.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from thaw.caching.store import Store",
            "thaw.models is not allowed to import thaw.caching",
        ),
        (
            "predicting/dataset.py",
            "def later():\n    from thaw.exporting import formats",
            "thaw.predicting is not allowed to import thaw.exporting",
        ),
        ("tasks/metrics.py", "from omegaconf import OmegaConf", "thaw.tasks is not allowed to import omegaconf"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path: Path, file: str, line: str, said: str) -> None:
    shutil.copytree(REPOSITORY / "src/thaw", tmp_path / "src/thaw", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "src/thaw" / file).open("a") as module:
        module.write(f"\n\n{line}\n")
    code, printed = lint_imports(tmp_path, tmp_path / "src")
    assert code == 1, printed
    assert said in " ".join(printed.split())


def test_every_room_and_command_has_its_place_in_the_order() -> None:
    (layers,) = re.findall(
        r"^layers = \[(.*?)^\]", (REPOSITORY / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE
    )
    placed = re.findall(r"thaw\.(\w+)", layers)
    files = [file.stem for file in (REPOSITORY / "src/thaw").glob("*.py") if file.stem != "__init__"]
    rooms = [file.parent.name for file in (REPOSITORY / "src/thaw").glob("*/__init__.py")]
    assert sorted(placed) == sorted(files + rooms)
