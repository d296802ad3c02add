"""What a command says of an error, from the error alone."""

import errno
from pathlib import Path

import pytest

from thaw.config.failures import is_user_error, message, report
from thaw.distributed.launch import ProcessesFailedError


def test_processes_that_failed_are_told_of_in_their_own_words() -> None:
    error = ProcessesFailedError("a sample cannot be read", printed=True)
    assert is_user_error(error)
    assert message(error) == "a sample cannot be read"


def test_a_file_that_the_user_s_own_code_cannot_open_is_a_bug_but_a_full_disk_is_not() -> None:
    with pytest.raises(OSError, match="No such file") as raised:
        Path("/nowhere/file").read_text()
    assert not is_user_error(raised.value)
    assert report(raised.value).startswith("Traceback")
    assert message(raised.value) == "/nowhere/file: No such file or directory"
    assert (
        report(OSError(errno.ENOSPC, "No space left on device", "/f"))
        == "error: /f: No space left on device. Make room on that disk"
    )
