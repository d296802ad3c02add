"""Tables that a user brings: csv, tsv, jsonl or parquet, each plain or gzipped.

Python's own csv and json read them, and not pandas: told to report rows with too many values, pandas drops rows with
stray quotes in silence; it gives no line numbers; its JSON reader turns 1 into 1.0 and refuses a file for one bad line.
"""

import csv
import gzip
import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from thaw.data.report import listed
from thaw.data.splits import SPLIT_NAMES
from thaw.errors import UserError

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
SUFFIXES = (*FORMATS, *(f"{suffix}.gz" for suffix in FORMATS))
"""Endings of the file names of tables, in lower case."""
SUFFIXES_SHOWN = f"{', '.join(FORMATS)}, or one of these with .gz"

SURROGATE = re.compile("[\ud800-\udfff]")

RawRow = tuple[str, dict[str, Any] | str]
"""Place of a row, as in `Row`, and its values by column, or the reason why it has none."""

csv.field_size_limit(2**31 - 1)  # long texts are allowed


@dataclass(frozen=True)
class Row:
    """One row of a table; all values are texts, as they stand in the file."""

    place: str
    """Where the row begins, as a prefix for messages: `labels.csv, line 7: ` (parquet: `labels.parquet, row 7: `)."""
    values: dict[str, str]
    """Values by column name; empty where `fault` is set."""
    fault: str | None = None
    """Why the row cannot be used; None if it can."""

    def __getitem__(self, column: str) -> str:
        """Return the value of a column, or raise UserError with the fault of the row."""
        if self.fault is not None:
            raise UserError(self.fault)
        return self.values[column]


def read_table(
    file: str | Path, columns: Mapping[str, str], encoding: str = "utf-8-sig", quotes: bool = True
) -> list[Row]:
    """Read a table whose rows should have certain columns.

    Args:
        file: The table; its format is told by its suffix.
        columns: Names of the required columns, each by the setting that names it (for messages).
        encoding: Encoding of the text; parquet has none.
        quotes: Whether values of csv and tsv may stand in double quotes and then hold separators and newlines.

    Returns:
        All rows. Those that cannot be used have a `fault`.

    Raises:
        UserError: if the file cannot be read, has no rows, or no row has a required column.
    """
    file = Path(file)
    suffix = table_suffix(file)
    if not file.is_file():
        raise UserError(f"{file} is not a file: name a table ({SUFFIXES_SHOWN})")
    if suffix is None:
        raise UserError(f"{file} is no table by its name: expected a name that ends in {SUFFIXES_SHOWN}")
    if not isinstance(quotes, bool):
        raise UserError(f"data.quotes is true or false, not {quotes}")
    names = list(columns.values())
    if suffix.startswith(".parquet"):
        raw_rows = _parquet_rows(file)
    elif suffix.startswith(".jsonl"):
        raw_rows = list(_json_rows(file, decoded(file, encoding)))
    else:
        delimiter = "\t" if suffix.startswith(".tsv") else ","
        raw_rows = list(_delimited_rows(file, decoded(file, encoding), delimiter, quotes, names))
    if not raw_rows:
        raise UserError(f"{file} has no rows")
    _require_columns(raw_rows, columns)
    return [_row(place, values, names) for place, values in raw_rows]


def table_suffix(file: Path) -> str | None:
    """Return the one of `SUFFIXES` that a file name ends in, or None."""
    return next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)


def label_in(row: Row, column: str) -> str:
    """Return the label of a row, without spaces around it. Raises UserError if there is none."""
    label = unicodedata.normalize("NFC", row[column].strip())
    if not label:
        raise UserError(f"no label in column {column}")
    return label


def split_in(row: Row, column: str | None) -> str | None:
    """Return train, val or test as `column` says, or None if it is empty. Raises UserError for any other word."""
    split = row[column].strip() if column is not None else ""
    if split and split.lower() not in SPLIT_NAMES:
        raise UserError(f"split '{split}' in column {column}: it is one of {', '.join(SPLIT_NAMES)}, or empty")
    return SPLIT_NAMES.get(split.lower())


def wrong_rows(file: str | Path, faults: Sequence[str], total: int) -> str:
    """Return a message that lists what is wrong with some of the `total` rows of a table, at most 50 of them."""
    return listed(f"of {total} rows of {file} are wrong", faults, most=50)


def decoded(file: Path, encoding: str) -> str:
    """Return the text of a file, gunzipped if its name ends in .gz.

    Raises:
        UserError: naming the first line that is not in this encoding, or if the encoding is unknown.
    """
    content = _content(file)
    try:
        return content.decode(encoding).removeprefix("\ufeff")  # the byte order mark, which only utf-8-sig removes
    except (LookupError, TypeError) as error:
        raise UserError(f"data.encoding={encoding} is unknown: utf-8, latin-1, cp949, utf-16 ...") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        guess = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "<its encoding>"
        raise UserError(
            f"{file} is not in {encoding} (line {line}): save it as UTF-8, or type data.encoding={guess} "
            f"(thaw.predict: encoding={guess})"
        ) from error


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    if not file.name.lower().endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{file} is not a whole gzip file ({error}): pack it anew, or bring it without .gz") from error


def _require_columns(rows: Sequence[RawRow], columns: Mapping[str, str]) -> None:
    """Raise UserError if a column is in no row at all."""
    readable = [(place, values) for place, values in rows if not isinstance(values, str)]
    missing = [f"{name} ({key})" for key, name in columns.items() if not any(name in values for _, values in readable)]
    if readable and missing:
        place, values = readable[0]
        names = ", ".join(values)
        if len(values) == 1 and any(separator in names for separator in ";,\t|"):
            names = f"the one column '{names}': save it with commas as .csv, or with tabs as .tsv"
        raise UserError(f"{place}no column {', '.join(missing)}; it has {names}")


def _row(place: str, values: dict[str, Any] | str, names: Sequence[str]) -> Row:
    fault = values if isinstance(values, str) else _fault(values, names)
    if fault is not None or isinstance(values, str):
        return Row(place, {}, fault)
    return Row(place, {key: "" if value is None else str(value) for key, value in values.items()})


def _fault(values: dict[str, Any], names: Sequence[str]) -> str | None:
    if missing := [name for name in names if name not in values]:
        return f"no column {', '.join(missing)}"
    for name in names:
        if isinstance(values[name], dict | list | bytes):
            shown = json.dumps(values[name], ensure_ascii=False, default=str)[:40]
            return f"column {name} holds {shown}, and no single value"
        if SURROGATE.search(str(values[name])):
            return f"column {name} holds half a character (a lone surrogate)"
    return None


def _delimited_rows(file: Path, text: str, delimiter: str, quotes: bool, names: Sequence[str]) -> Iterator[RawRow]:
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] | None = None
    place = f"{file.name}, line 1: "
    try:
        for values in reader:
            if header is None and values:
                header = values
                if repeated := sorted({name for name in names if header.count(name) > 1}):
                    raise UserError(f"{place}the column {', '.join(repeated)} is there more than once")
            elif header is not None and (values or len(header) == 1):  # an empty line is a value of a lone column
                yield place, _by_column(header, values or [""], delimiter)
            place = f"{file.name}, line {reader.line_num + 1}: "
    except csv.Error as error:
        hint = ". Where quotes are plain characters, type data.quotes=false" if quotes else ""
        raise UserError(f"{place}{error} (read up to line {reader.line_num}){hint}") from error


def _by_column(header: list[str], values: list[str], delimiter: str) -> dict[str, str] | str:
    if len(values) != len(header):
        return f"{len(values)} values for {len(header)} columns"
    if delimiter == "\t" and any("\t" in value and "\n" in value for value in values):
        return "a quoted field goes on over a tab into the next line: should it not, type data.quotes=false"
    return dict(zip(header, values, strict=True))


def _json_rows(file: Path, text: str) -> Iterator[RawRow]:
    for number, line in enumerate(StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            values = f"not JSON ({error})"
        else:
            if not isinstance(values, dict):
                values = f"an object is expected, {{...}}, not {line.strip()[:40]}"
        yield f"{file.name}, line {number}: ", values


def _parquet_rows(file: Path) -> list[RawRow]:
    try:
        from pyarrow import parquet  # not a dependency: only this format needs it
    except ImportError as error:
        raise UserError(f"{file} needs pyarrow to be read: pip install pyarrow, or save the table as .csv") from error
    try:
        rows = parquet.read_table(BytesIO(_content(file))).to_pylist()
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
        raise UserError(f"{file} cannot be read as parquet: {error}") from error
    return [(f"{file.name}, row {number}: ", values) for number, values in enumerate(rows, start=1)]
