"""Tables that a user brings: .csv, .tsv or .jsonl."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from thaw.data.splits import SPLIT_NAMES
from thaw.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")

csv.field_size_limit(2**31 - 1)  # a long text is no fault


@dataclass(frozen=True)
class Row:
    place: str
    """`labels.csv, line 7: `, for messages; the line on which it begins."""
    values: dict[str, str]
    fault: str | None = None
    """Why it has no values."""

    def __getitem__(self, column: str) -> str:
        """Raises UserError where the row is wrong."""
        if self.fault is not None:
            raise UserError(self.fault)
        return self.values[column]


def read_table(
    file: str | Path, columns: Mapping[str, str], encoding: str = "utf-8-sig", quotes: bool = True
) -> list[Row]:
    """The rows of a table, right or wrong, with all of `columns`: by the key that names each, for messages.

    `quotes`: whether a field may stand in double quotes, and then hold separators and newlines. Raises UserError
    naming file, line and column where it cannot be read.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file} is not a file: name a table ({', '.join(SUFFIXES)})")
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"{file} is no table by its name: it ends in {', '.join(SUFFIXES)}")
    if not isinstance(quotes, bool):
        raise UserError(f"data.quotes is true or false, not {quotes}")
    text, named = decoded(file, encoding), list(columns.values())
    lines = list(_jsonl(file, text) if file.suffix.lower() == ".jsonl" else _delimited(file, text, quotes, named))
    _require_columns(lines, columns)
    rows = []
    for place, values in lines:
        if isinstance(values, str):
            rows.append(Row(place, {}, values))
        elif missing := [column for column in named if column not in values]:
            rows.append(Row(place, {}, f"no column {', '.join(missing)}"))
        elif halved := [column for column in named if not _encodable(values[column])]:
            rows.append(Row(place, {}, f"column {halved[0]} holds half a character (a lone surrogate)"))
        elif nested := [column for column in columns.values() if isinstance(values[column], dict | list)]:
            shown = json.dumps(values[nested[0]], ensure_ascii=False)[:40]
            rows.append(Row(place, {}, f"column {nested[0]} holds {shown}, and no single value"))
        else:
            rows.append(Row(place, {key: "" if value is None else str(value) for key, value in values.items()}))
    if not rows:
        raise UserError(f"{file} has no rows")
    return rows


def _require_columns(lines: Sequence[tuple[str, dict[str, Any] | str]], columns: Mapping[str, str]) -> None:
    """ValueError where no row at all has a column."""
    whole = [(place, values) for place, values in lines if not isinstance(values, str)]
    missing = [f"{col} ({key})" for key, col in columns.items() if not any(col in values for _, values in whole)]
    if whole and missing:
        place, values = whole[0]
        raise UserError(f"{place}no column {', '.join(missing)}; it has {_columns(list(values))}")


def _encodable(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def split_in(row: Row, column: str | None) -> str | None:
    """train, val or test, as `column` says; None where it says nothing. Raises UserError for another word."""
    split = row[column].strip() if column is not None else ""
    if split and split.lower() not in SPLIT_NAMES:
        raise UserError(f"split '{split}' in column {column}: it is one of {', '.join(SPLIT_NAMES)}, or empty")
    return SPLIT_NAMES.get(split.lower())


def wrong_rows(file: str | Path, faults: list[str], total: int, most: int = 50) -> str:
    shown = [f"  {fault}" for fault in faults[:most]] + ["  ..."] * (len(faults) > most)
    return "\n".join([f"{len(faults)} of {total} rows of {file} are wrong:", *shown])


def decoded(file: Path, encoding: str) -> str:
    """What a file says. Raises UserError naming the line that is in another encoding."""
    content = file.read_bytes()
    try:
        return content.decode(encoding).removeprefix("\ufeff")  # the mark at the start that utf-8-sig does not write
    except (LookupError, TypeError) as error:
        raise UserError(f"data.encoding={encoding} is unknown: utf-8, latin-1, cp949, utf-16 ...") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        guess = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "<its encoding>"
        raise UserError(
            f"{file} is not in {encoding} (line {line}): save it as UTF-8, or type data.encoding={guess} "
            f"(thaw.predict: encoding={guess})"
        ) from error


def _columns(names: list[str]) -> str:
    if len(names) == 1 and any(separator in names[0] for separator in ";,\t|"):
        return f"the one column '{names[0]}': save it with commas as .csv, or with tabs as .tsv"
    return ", ".join(names)


def _delimited(file: Path, text: str, quotes: bool, named: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Place and values of each row, or what is wrong with it."""
    delimiter = DELIMITERS[file.suffix.lower()]
    reader = csv.reader(
        StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )
    header: list[str] | None = None
    while True:
        place = f"{file.name}, line {reader.line_num + 1}: "
        try:
            values = next(reader, None)
        except csv.Error as error:
            hint = ". Where quotes are plain characters, type data.quotes=false" if quotes else ""
            raise UserError(f"{place}{error} (read up to line {reader.line_num}){hint}") from error
        if values is None:
            return
        if not values and header is not None and len(header) == 1:
            values = [""]
        if not values:  # an empty line
            continue
        if header is None:
            header = values
            if twice := {name for name in named if header.count(name) > 1}:
                raise UserError(f"{place}the column {', '.join(sorted(twice))} is there more than once")
        elif len(values) != len(header):
            yield place, f"{len(values)} values for {len(header)} columns"
        elif delimiter == "\t" and any("\t" in value and "\n" in value for value in values):
            yield place, "a quoted field goes on over a tab into the next line: should it not, type data.quotes=false"
        else:
            yield place, dict(zip(header, values, strict=True))


def _jsonl(file: Path, text: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Place and values of each row, or what is wrong with it."""
    for number, line in enumerate(StringIO(text), start=1):
        if not line.strip():
            continue
        place = f"{file.name}, line {number}: "
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield place, f"not JSON ({error})"
            continue
        yield place, values if isinstance(values, dict) else f"an object is expected, {{...}}, not {line.strip()[:40]}"
