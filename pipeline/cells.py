"""Cells of CSV files that people open in a spreadsheet, which runs what begins with = + - @ or a tab.

Such text gets an apostrophe in front, which spreadsheets take for "this is text", and so does text in which apostrophes
are followed by one of these; numbers stay as they are. Our own readers take the apostrophe away again.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def to_cell(value: object) -> object:
    """The value as it is written into a cell: no spreadsheet takes it for a formula."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def from_cell(text: str) -> str:
    """The text that `to_cell` made this cell of."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_cells(file: Path) -> Iterator[list[str]]:
    """Yield the rows, the header first, of a CSV file that `files.write_csv` wrote."""
    with file.open(encoding="utf-8", newline="") as lines:
        yield from ([from_cell(cell) for cell in row] for row in csv.reader(lines))


def read_records(file: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file that `files.write_csv` wrote, by column."""
    rows = read_cells(file)
    header = next(rows, [])
    yield from (dict(zip(header, row, strict=False)) for row in rows)
