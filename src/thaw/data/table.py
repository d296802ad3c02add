"""Tables that a user brings: csv, tsv, json, jsonl or parquet, each plain or gzipped.

They are read with Python's csv and json, not with pandas: when it is told to report rows with too many values, pandas
silently drops rows with stray quotes; it gives no line numbers; its JSON reader turns 1 into 1.0 and refuses a whole
file because of one bad line.
"""

import csv
import gzip
import json
import re
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from thaw.data.report import format_list
from thaw.data.splits import SPLIT_NAMES
from thaw.errors import UserError

FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
SUFFIXES = (*FORMATS, *(f"{suffix}.gz" for suffix in FORMATS))
"""Endings of the file names of tables, in lower case."""
SUFFIXES_SHOWN = f"{', '.join(FORMATS)}, or one of these with .gz"

DELIMITERS = ",;\t|"
MISSING = ("", "nan", "<na>")
"""Labels that are none, in lower case: what pandas makes of a missing value. `NA` and `None` may be names."""
SURROGATE = re.compile("[\ud800-\udfff]")

csv.field_size_limit(2**31 - 1)  # long texts are allowed


@dataclass(frozen=True)
class Row:
    """One row of a table; all values are texts, as they stand in the file."""

    place: str
    """Where the row begins, as a prefix for messages: `labels.csv, line 7: ` (parquet: `labels.parquet, row 7: `)."""
    values: Mapping[str, str]
    """Values by column name; empty where `fault` is set."""
    fault: str | None = None
    """Why the row cannot be used; None if it can."""

    def __getitem__(self, column: str) -> str:
        """Return the value of a column, or raise UserError with the fault of the row."""
        if self.fault is not None:
            raise UserError(self.fault)
        return self.values[column]


def read_table(
    file: str | Path,
    columns: Mapping[str, str | Sequence[str] | None],
    encoding: str = "utf-8-sig",
    quotes: bool = True,
    lists: Collection[str] = (),
) -> list[Row]:
    """Read a table whose rows should have certain columns.

    Args:
        file: The table; its format is told by its suffix.
        columns: The required columns: for each setting (for messages) the column or columns that it names, or None.
        encoding: Encoding of the text; parquet has none.
        quotes: Whether values of csv and tsv may stand in double quotes and then hold separators and newlines.
        lists: Columns that may hold lists in JSON and parquet; they become JSON texts.

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
        raise UserError(
            f"{file} is no table by its name: expected one that ends in {SUFFIXES_SHOWN}. Save it as one of these, a "
            "spreadsheet as .csv"
        )
    named = {key: [names] if isinstance(names, str) else names or [] for key, names in columns.items()}
    required = {name: key for key, names in named.items() for name in names}
    if suffix.startswith(".parquet"):
        rows = _parquet_rows(file)
    elif suffix.startswith(".json"):
        rows = list(_json_rows(file, read_text(file, encoding)))
    else:
        text = read_text(file, encoding)
        likeliest = "\t" if suffix.startswith(".tsv") else ","
        delimiter = max((likeliest, *DELIMITERS), key=partial(_num_columns, text, quotes, set(required)))
        rows = list(_delimited_rows(file, text, delimiter, quotes, required))
    if not rows:
        raise UserError(f"{file} has no rows")
    _require_columns(rows, required)
    return [_check_row(row, required, lists) for row in rows]


def table_suffix(file: Path) -> str | None:
    """Return the one of `SUFFIXES` that a file name ends in, or None."""
    return next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)


def label_in(row: Row, column: str) -> str:
    """Return the label of a row, without spaces around it. Raises UserError if it is `MISSING`."""
    label = unicodedata.normalize("NFC", row[column].strip())
    if label.lower() in MISSING:
        raise UserError(f"no label in column {column}")
    return label


def group_in(row: Row, column: str | None) -> str | None:
    """Return the group of a row, None without a column. Raises UserError if it is `MISSING`."""
    if column is None:
        return None
    group = unicodedata.normalize("NFC", row.values.get(column, "").strip())
    if group.lower() in MISSING:
        raise UserError(f"no group in column {column}")
    return group


def split_in(row: Row, column: str | None) -> str | None:
    """Return train, val or test as `column` says, or None if it is empty. Raises UserError for any other word."""
    split = row[column].strip() if column is not None else ""
    if split and split.lower() not in SPLIT_NAMES:
        raise UserError(f"split '{split}' in column {column}: it is one of {', '.join(SPLIT_NAMES)}, or empty")
    return SPLIT_NAMES.get(split.lower())


def wrong_rows(file: str | Path, faults: Sequence[str], total: int) -> str:
    """Return a message that lists what is wrong with some of the `total` rows of a table, at most 50 of them."""
    return format_list(f"of {total} rows of {file} are wrong", faults, most=50)


def read_text(file: Path, encoding: str) -> str:
    """Return the text of a file, gunzipped if its name ends in .gz.

    Raises:
        UserError: naming the first line that is not in this encoding, or if the encoding is unknown.
    """
    return decoded(_content(file), str(file), encoding)


def decoded(content: bytes, name: str, encoding: str) -> str:
    """Return the content of the file `name` as text. Raises UserError, see `read_text`."""
    try:
        return content.decode(encoding).removeprefix("\ufeff")  # the byte order mark, which only utf-8-sig removes
    except (LookupError, TypeError) as error:
        raise UserError(f"data.encoding={encoding} is unknown: utf-8, latin-1, cp949, utf-16 ...") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        guess = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "<its encoding>"
        raise UserError(
            f"{name} is not in {encoding} (line {line}): save it as UTF-8, or type data.encoding={guess} "
            f"(thaw.predict: encoding={guess})"
        ) from error


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    if not file.name.lower().endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{file} is not a whole gzip file ({error}): compress it again, or unpack it first") from error


def _require_columns(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Raise UserError if one of `columns`, each with the setting that names it, is in no row at all."""
    readable = [row for row in rows if row.fault is None]
    missing = {name: key for name, key in columns.items() if not any(name in row.values for row in readable)}
    if readable and missing:
        names, typed = ", ".join(missing), " ".join(f"{key}=..." for key in dict.fromkeys(missing.values()))
        raise UserError(f"{readable[0].place}no column {names}, but {', '.join(readable[0].values)}: type {typed}")


def _check_row(row: Row, names: Iterable[str], lists: Collection[str]) -> Row:
    """Return a row as texts, or with its fault: all of `names` must be there, each with a single value, or a list."""
    listed = {name: json.dumps(row.values[name]) for name in lists if isinstance(row.values.get(name), list)}
    values = {**row.values, **listed}
    fault = row.fault or _find_fault(values, names)
    if fault is not None:
        return Row(row.place, {}, fault)
    # JSON and parquet have a NaN, which is the only value that differs from itself.
    return Row(row.place, {key: "" if value is None or value != value else str(value) for key, value in values.items()})


def _find_fault(values: Mapping[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        if name not in values:
            return f"no column {name}"
        if isinstance(values[name], dict | list | bytes):
            shown = json.dumps(values[name], ensure_ascii=False, default=str)[:40]
            return f"column {name} holds {shown}, and no single value"
        if SURROGATE.search(str(values[name])):
            return f"column {name} holds half a character (a lone surrogate)"
    return None


def _num_columns(text: str, quotes: bool, required: set[str], delimiter: str) -> tuple[int, int]:
    """Number of required columns, and of all columns, that the first line of a table has with this delimiter."""
    try:
        header: list[str] = next(filter(None, _reader(text, delimiter, quotes)), [])
    except csv.Error:
        return 0, 0
    return len(required.intersection(header)), len(header)


def _reader(text: str, delimiter: str, quotes: bool) -> Any:  # the class has no name in public
    return csv.reader(
        StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )


def _delimited_rows(file: Path, text: str, delimiter: str, quotes: bool, names: Iterable[str]) -> Iterator[Row]:
    reader = _reader(text, delimiter, quotes)
    header: list[str] = []
    place = f"{file.name}, line 1: "
    try:
        for values in reader:
            if not header:
                header = values
                if repeated := sorted({name for name in names if header.count(name) > 1}):
                    raise UserError(f"{place}the column {', '.join(repeated)} is there more than once")
            elif values or len(header) == 1:  # an empty line is a row only where there is one column
                values = values or [""]
                fault = None
                if len(values) != len(header):
                    fault = f"{len(values)} values for {len(header)} columns"
                elif delimiter == "\t" and any("\t" in value and "\n" in value for value in values):
                    fault = (
                        "a quoted field goes on over a tab into the next line: if that is wrong, type data.quotes=false"
                    )
                yield Row(place, dict(zip(header, values, strict=False)), fault)
            place = f"{file.name}, line {reader.line_num + 1}: "
    except csv.Error as error:
        hint = ". Where quotes are plain characters, type data.quotes=false" if quotes else ""
        raise UserError(f"{place}{error} (read up to line {reader.line_num}){hint}") from error


def _json_rows(file: Path, text: str) -> Iterator[Row]:
    """Rows of an array of objects, of one object, or of an object on each line, whichever suffix the name has."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        if re.match(r"\s*\[\s*\{", text):
            raise UserError(f"{file} is not JSON: {error}") from error
        yield from _json_lines(file, text)
        return
    for number, item in enumerate(whole if isinstance(whole, list) else [whole], start=1):
        yield _json_row(f"{file.name}, item {number}: ", item)


def _json_lines(file: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(StringIO(text), start=1):
        place = f"{file.name}, line {number}: "
        if not line.strip():
            continue
        try:
            yield _json_row(place, json.loads(line))
        except (ValueError, RecursionError) as error:
            yield Row(place, {}, f"not JSON ({error})")


def _json_row(place: str, values: Any) -> Row:
    if isinstance(values, dict):
        return Row(place, values)
    shown = json.dumps(values, ensure_ascii=False)[:40]
    return Row(place, {}, f"an object is expected, {{...}}, not {shown}")


def _parquet_rows(file: Path) -> list[Row]:
    try:
        from pyarrow import parquet  # not a dependency: only this format needs it
    except ImportError as error:
        raise UserError(f"{file} needs pyarrow to be read: pip install pyarrow, or save the table as .csv") from error
    try:
        rows = parquet.read_table(BytesIO(_content(file))).to_pylist()
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
        raise UserError(f"{file} cannot be read as parquet: {error}") from error
    return [Row(f"{file.name}, row {number}: ", values) for number, values in enumerate(rows, start=1)]
