"""Read a table of images: CSV, TSV, JSON lines or Parquet with the columns `path`, `label` and, optionally, `split`."""

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.cells import from_cell
from pipeline.settings import SettingsError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_IS_VALID = "is_valid"
"""fastai's column, used where there is no `split`."""
_TRUTH = {"true": "valid", "1": "valid", "1.0": "valid", "false": "train", "0": "train", "0.0": "train", "": ""}
_AS_UTF8 = "save it as UTF-8 (in Excel: Save As, 'CSV UTF-8')"

Numbered = tuple[int, dict[str, Any]]
"""The number of a row's line, from 1, and its cells by column. In Parquet, which has no lines, that of the row."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table. Missing values are empty."""

    path: str
    label: str
    split: str
    group: str
    place: str
    """Such as `line 7`."""


def read_table(file: Path, *, group: str | None) -> list[Row]:
    """Read a table. Rows with the same value in the column `group` stay in one split.

    Raises SettingsError, which names the row and what is wrong, for a table that cannot be read or lacks a column.
    """
    try:
        rows = read_rows(file)
        if not rows:
            raise SettingsError(
                f"data.root={file} has no rows: it needs the columns path and label, and a row per image"
            )
        columns = list(dict.fromkeys(name for _, row in rows[:100] for name in row))
        needed = ["path", "label", *([group] if group else [])]
        if missing := [name for name in needed if name not in columns]:
            raise SettingsError(
                f"data.root={file} has no column {missing[0]!r}; it has {columns}: rename one (.csv files need commas "
                "between cells, .tsv files need tabs)"
            )
        read = [_row(row, f"{unit_of(file)} {number}", file.parent, group) for number, row in rows]
        return _with_splits(read, rows, columns)
    except SettingsError:
        raise
    except (OSError, ValueError) as error:
        raise SettingsError(f"data.root={file} cannot be read as a table: {error}") from None


def unit_of(file: Path) -> str:
    """What the rows of such a file are counted in."""
    return "row" if file.suffix.lower() == ".parquet" else "line"


def read_rows(file: Path) -> list[Numbered]:
    """Read the rows of a table of any kind. Raises OSError, or ValueError that names the line."""
    match file.suffix.lower():
        case ".csv":
            return [*_read_cells(file, ",")]
        case ".tsv":
            return [*_read_cells(file, "\t")]
        case ".jsonl":
            numbered = enumerate(_decode(file).split("\n"), 1)
            return [(number, _object(line, number)) for number, line in numbered if line.strip()]
        case ".parquet":
            return [*enumerate(_read_parquet(file), 1)]
    raise ValueError(f"its suffix must be one of {', '.join(SUFFIXES)}")


def _row(row: dict[str, Any], place: str, folder: Path, group: str | None) -> Row:
    def text(column: str) -> str:
        return _text(row.get(column), f"{place}: the {column} of {row.get('path')!r}")

    return Row(_found(text("path"), folder), text("label"), text("split"), text(group) if group else "", place)


def _text(value: Any, what: str) -> str:
    """The cell as text, because a label may be a number in one format and text in another."""
    match value:
        case None:
            return ""
        case str():
            text = value.strip()
        case bool() | int():
            text = str(value)
        case float() | Decimal():
            text = "" if math.isnan(value) else str(value)
        case list():
            raise ValueError(
                f"{what} is {value!r}, but an image has one label: several labels per image (multi-label) are not "
                "supported; keep one of them"
            )
        case _:
            raise ValueError(f"{what} is {value!r}, a {type(value).__name__}: it must be text or a number")
    if "\0" in text or not _is_unicode(text):
        raise ValueError(f"{what} is {value!r}, which no file or class can be called")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _found(path: str, folder: Path) -> str:
    """The path, with slashes in place of a Windows program's back-slashes where only these lead to a file."""
    slashed = path.replace("\\", "/")
    return slashed if slashed != path and not _exists(folder, path) and _exists(folder, slashed) else path


def _exists(folder: Path, path: str) -> bool:
    return os.path.lexists(os.path.join(folder, path))  # noqa: PTH118 (ten times faster than pathlib)


def _with_splits(read: list[Row], rows: list[Numbered], columns: list[str]) -> list[Row]:
    """Fill the splits from fastai's column `is_valid`, if the table has that and no column `split`."""
    if _IS_VALID not in columns:
        return read
    if "split" in columns:
        raise ValueError(f"it has both split and {_IS_VALID}: remove one column, or rename it")
    splits = []
    for row, (_, cells) in zip(read, rows, strict=True):
        typed = _text(cells.get(_IS_VALID), f"{row.place}: the {_IS_VALID} of {row.path!r}")
        if typed.lower() not in _TRUTH:
            raise ValueError(
                f"{row.place}: the {_IS_VALID} of {row.path!r} is {typed!r}: it must be True (valid) or False (train); "
                "rename the column if it says something else"
            )
        splits.append(_TRUTH[typed.lower()])
    if set(splits) == {"valid"}:
        raise ValueError(f"{_IS_VALID} is true in every row: nothing is left to train on; rename the column if it says "
                         "something else")  # fmt: skip
    return [Row(row.path, row.label, split, row.group, row.place) for row, split in zip(read, splits, strict=True)]


def _read_cells(file: Path, delimiter: str) -> Iterator[Numbered]:
    header: list[str] | None = None
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for line, cells in _lines(csv.reader(lines, delimiter=delimiter, strict=True)):
                if header is None:
                    header = cells
                    _check_header(header, file)
                else:
                    yield line, _cells(header, cells, line)
    except UnicodeDecodeError:
        raise ValueError(_encoding(file.read_bytes())) from None


def _lines(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the number of its first line."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"line {line}: {error}: a cell that holds a double quote stands in double quotes, and the quote in it "
                'is written twice ("a ""big"" cat")'
            ) from None
        if cells:
            yield line, [from_cell(cell) for cell in cells]


def _check_header(header: list[str], file: Path) -> None:
    if any("\0" in name for name in header):
        raise ValueError(_encoding(file.read_bytes()))
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise ValueError(f"its header has the column {twice[0]!r} twice: rename one")


def _cells(header: list[str], cells: list[str], line: int) -> dict[str, Any]:
    if any(cells[len(header) :]):
        raise ValueError(
            f"line {line} has {len(cells)} cells, but the header has {len(header)}: put a cell that holds the "
            'separator into double quotes ("cats, dogs")'
        )
    return dict(zip(header, cells, strict=False))


def _decode(file: Path) -> str:
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(_encoding(data)) from None


def _encoding(data: bytes) -> str:
    """What a file that is not UTF-8 is instead, and where that shows."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4096]:
        return f"it is UTF-16 (Excel's 'Unicode Text'), or no text: {_AS_UTF8}"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return (
            f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}) but most likely ANSI (Windows-1252): {_AS_UTF8}"
        )
    return f"it is not text: {_AS_UTF8}"


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f'line {number} is not an object such as {{"path": "a.jpg", "label": "cat"}}: {line[:80]!r}')
    return values


def _read_parquet(file: Path) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        found: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OverflowError) as error:
        raise ValueError(f"it is damaged, or no Parquet file ({error})") from None
    return found
