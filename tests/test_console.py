"""What is printed where the console has no Unicode."""

import io
import subprocess
import sys
from subprocess import PIPE

import pytest
from rich.table import Table

from thaw.console import as_text, print_anything


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_tables_and_names_are_printed_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    print_anything()
    table = Table("class", "count")
    table.add_row("고양이", "3")
    print(as_text(table), flush=True)
    lines = written.getvalue().decode(encoding).splitlines()
    assert lines[0].startswith("+--------+-------+")
    assert lines[3].startswith("| ??? ")


@pytest.mark.parametrize("buffered", [True, False])
def test_what_nobody_reads_any_more_stops_nothing(buffered: bool) -> None:
    code = (
        "import sys; from thaw.console import outlive_readers; outlive_readers(); print('first', flush=True); "
        "sys.stdin.read(); print('more'); print('a warning', file=sys.stderr); sys.exit(3)"
    )
    command = subprocess.Popen(
        [sys.executable, *([] if buffered else ["-u"]), "-c", code], stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert command.stdin is not None
    assert command.stdout is not None
    assert command.stderr is not None
    assert command.stdout.readline() == b"first\n"
    command.stdout.close()
    command.stdin.close()
    assert command.stderr.read() == b"a warning\n"
    assert command.wait() == 3
    command.stderr.close()
