"""What a run folder may hold."""

import os
from pathlib import Path

from thaw.runs.files import strange_files


def test_links_out_of_a_folder_and_what_is_no_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "run/inside").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "run/inside/file").touch()
    (tmp_path / "run/here").symlink_to("inside/file")
    (tmp_path / "run/inside/up").symlink_to("..")
    assert strange_files(tmp_path / "run") == []
    (tmp_path / "linked").symlink_to("run")
    assert strange_files(tmp_path / "linked") == []
    os.mkfifo(tmp_path / "run/inside/pipe")
    (tmp_path / "run/inside/device").symlink_to("/dev/zero")
    (tmp_path / "run/folder").symlink_to("../outside")
    (tmp_path / "run/to_come").symlink_to(tmp_path / "outside/file")
    names = [file.relative_to(tmp_path / "run").as_posix() for file in strange_files(tmp_path / "run")]
    assert names == ["folder", "inside/device", "inside/pipe", "to_come"]
