"""Errors of files that cannot be written."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from thaw.storage import written_whole


@pytest.mark.parametrize(
    ("error", "is_full", "named"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), False, True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), False, True),
        (RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 3648 vs 3568"), True, True),
        (RuntimeError("shapes differ"), False, False),
    ],
)
def test_what_a_library_says_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_full: bool, named: bool
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if is_full:
        monkeypatch.setattr("thaw.faults.TemporaryFile", refuse)
    file = tmp_path / "weights.safetensors"
    file.write_text("old")

    def write() -> None:
        with written_whole(file) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(OSError if named else RuntimeError) as raised:
        write()
    if named:
        assert isinstance(raised.value, OSError)
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(file))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_text() == "old"
