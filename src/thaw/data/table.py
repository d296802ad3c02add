"""Tables that a user brings: .csv, .tsv or .jsonl."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Row(NamedTuple):
    place: str
    """`labels.csv, line 7: `, for messages."""
    values: dict[str, str]


def read_table(file: str | Path, columns: Mapping[str, str], encoding: str = "utf-8-sig") -> list[Row]:
    """The rows of a table, with all of `columns`: by the key that names each, for messages.

    Raises ValueError naming file, line and column of what is wrong.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"{file} is not a file: name a table (.csv, .tsv or .jsonl)")
    if file.suffix.lower() not in (*DELIMITERS, ".jsonl"):
        raise ValueError(f"{file} is no table by its name: it ends in .csv, .tsv or .jsonl")
    try:
        rows = list(_jsonl(file, encoding) if file.suffix.lower() == ".jsonl" else _delimited(file, encoding))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not in {encoding} (byte {error.start}): save it as UTF-8") from error
    if not rows:
        raise ValueError(f"{file} has no rows")
    for row in rows:
        if missing := [f"{column} ({key})" for key, column in columns.items() if column not in row.values]:
            raise ValueError(f"{row.place}no column {', '.join(missing)}; it has {_columns(list(row.values))}")
    return rows


def _columns(names: list[str]) -> str:
    if len(names) == 1 and any(separator in names[0] for separator in ";\t|"):
        return f"the one column '{names[0]}': save it with commas, or with tabs as .tsv"
    return ", ".join(names)


def _delimited(file: Path, encoding: str) -> Iterator[Row]:
    with file.open(newline="", encoding=encoding) as opened:
        reader = csv.DictReader(opened, delimiter=DELIMITERS[file.suffix.lower()], strict=True)
        while True:
            try:
                values: dict[Any, Any] | None = next(reader, None)
            except csv.Error as error:
                raise ValueError(f"{file.name}, line {reader.reader.line_num}: {error}") from error
            if values is None:
                return
            place = f"{file.name}, line {reader.line_num}: "
            if None in values or None in values.values():
                given = (
                    sum(value is not None for value in values.values()) + len(values.get(None, [])) - (None in values)
                )
                raise ValueError(f"{place}{given} values for {len(reader.fieldnames or [])} columns")
            yield Row(place, values)


def _jsonl(file: Path, encoding: str) -> Iterator[Row]:
    with file.open(encoding=encoding) as opened:
        for number, line in enumerate(opened, start=1):
            if not line.strip():
                continue
            place = f"{file.name}, line {number}: "
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{place}not JSON ({error})") from error
            if not isinstance(values, dict):
                raise ValueError(f"{place}an object is expected, {{...}}, not {type(values).__name__}")
            yield Row(place, {key: "" if value is None else str(value) for key, value in values.items()})
