"""The wheel: what an installed package needs is inside."""

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from thaw.new_project.renaming import files_below
from thaw.new_project.thin import TEMPLATE

ROOT = Path(__file__).parents[1]


@pytest.mark.run
def test_an_installed_wheel_runs_in_an_empty_folder(tmp_path: Path) -> None:
    project, site = tmp_path / "project", tmp_path / "site"
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, project / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(tmp_path)]
    subprocess.run([*pip, str(project)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    inside = {file.relative_to(site / "thaw" / "conf") for file in (site / "thaw" / "conf").rglob("*.yaml")}
    assert inside == {file.relative_to(ROOT / "conf") for file in (ROOT / "conf").rglob("*.yaml")}

    inside = files_below(site / "thaw/new_project/thin")
    assert inside == files_below(TEMPLATE)
    assert (site / "hydra_plugins/thaw_project.py").is_file()
    entry_points = ConfigParser()
    entry_points.read(next(site.glob("*.dist-info/entry_points.txt")))
    commands = {file.stem for file in (site / "thaw").glob("*.py") if "\ndef main(" in file.read_text()}
    assert dict(entry_points["console_scripts"]) == {f"thaw-{name}": f"thaw.{name}:main" for name in commands}
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in commands:
        done = subprocess.run(
            [sys.executable, "-m", f"thaw.{name}", "--help"],
            cwd=empty,
            env={"PYTHONPATH": str(site), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"thaw.{name}" in done.stdout or "thaw: fine-tune a pretrained network" in done.stdout
    assert not list(empty.iterdir())
    outside = {"PYTHONPATH": str(site), "PATH": ""}
    new = [sys.executable, "-m", "thaw.new", "my_birds"]
    done = subprocess.run(new, cwd=empty, env=outside, capture_output=True, text=True, check=True)
    assert {file.as_posix() for file in files_below(empty)} >= {
        "my_birds/Makefile",
        "my_birds/.github/workflows/ci.yml",
    }
    done = subprocess.run(
        [*new[:-1], "all_of_it", "kind=whole"], cwd=empty, env=outside, capture_output=True, text=True
    )
    assert "type the command in a clone, or kind=thin" in done.stderr
