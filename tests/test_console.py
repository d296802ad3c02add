"""What is printed where the console has no Unicode."""

import io
import sys

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
