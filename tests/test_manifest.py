"""Files that are replaced and verified."""

import os
from pathlib import Path

import pytest

from thaw.errors import UserError
from thaw.manifest import drop_from_manifest, is_intact, list_in_manifest, read_manifest, replacing, require_intact


class Stop(BaseException):
    pass


def write(file: Path, text: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(text)


@pytest.mark.parametrize("listed", [True, False])
def test_at_every_step_of_a_write_the_file_is_whole_and_verified(tmp_path: Path, listed: bool) -> None:
    replace, stopped = os.replace, 0
    for step in range(1, 10):
        file = tmp_path / str(step) / "metrics.json"
        file.parent.mkdir()
        write(file, "old")
        if not listed:
            drop_from_manifest(file)
        done = 0

        def stop(source: Path, target: Path, step: int = step) -> None:
            nonlocal done
            done += 1
            if done == step:
                raise Stop
            replace(source, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", stop)
            try:
                write(file, "new")
            except Stop:
                stopped += 1
        assert require_intact(file, "").read_text() == ("old" if step <= 2 else "new")
        write(file, "newer")
        assert len(read_manifest(file.parent)["metrics.json"]) == 1
    assert stopped == 3


def test_a_full_disk_takes_nothing_away_and_is_told_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", "old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left") as error:
        write(tmp_path / "a", "new")
    assert error.value.filename == f"{tmp_path}/a"
    assert require_intact(tmp_path / "a", "").read_text() == "old"
    assert not (tmp_path / "a.partial").exists()


def test_what_the_manifest_does_not_list_is_taken_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "samples.csv"
    assert require_intact(file, "") == file  # it is absent
    file.write_text("1")
    assert require_intact(file, "") == file
    list_in_manifest(file)
    file.write_text("2")
    assert not is_intact(file)
    with pytest.raises(UserError, match=f"{file} is damaged: .* Have a copy"):
        require_intact(file, "Have a copy")
    for broken in ("{", "[]", '{"samples.csv": "1"}'):
        (tmp_path / "manifest.json").write_text(broken)
        assert require_intact(file, "") == file
        assert "manifest.json is damaged" in caplog.text
        caplog.clear()
