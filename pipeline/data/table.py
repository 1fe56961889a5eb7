"""Read a table of images: CSV, TSV, JSON lines or Parquet with the columns `path`, `label` and, optionally, `split`."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.settings import SettingsError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table. Missing values are empty."""

    path: str
    label: str
    split: str
    group: str


def read_table(file: Path, *, group: str | None) -> list[Row]:
    """Read a table. Rows with the same value in the column `group` stay in one split.

    Raises SettingsError, which names what is wrong, for a table that cannot be read or lacks a column.
    """
    try:
        rows = read_rows(file)
    except (OSError, ValueError, csv.Error) as error:
        raise SettingsError(f"data.root={file} cannot be read as a table: {error}") from None
    if not rows:
        raise SettingsError(f"data.root={file} has no rows: it needs the columns path and label, and a row per image")
    needed = ["path", "label", *([group] if group else [])]
    columns = list(dict.fromkeys(name for row in rows[:100] for name in row))
    if missing := [name for name in needed if name not in columns]:
        raise SettingsError(
            f"data.root={file} has no column {missing[0]!r}; it has {columns}: rename one (.csv files need commas "
            "between cells, .tsv files need tabs)"
        )
    for row in rows:
        if isinstance(row.get("label"), list | dict):
            raise SettingsError(
                f"data.root={file}: the label of {row['path']!r} is {row['label']!r}, but an image has one label: "
                "several labels per image (multi-label) are not supported; keep one of them"
            )
    return [
        Row(_text(r["path"]), _text(r.get("label")), _text(r.get("split")), _text(r.get(group or ""))) for r in rows
    ]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a table of any kind. Raises OSError, ValueError or csv.Error."""
    match file.suffix.lower():
        case ".csv" | ".tsv" as suffix:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                return list(csv.DictReader(lines, delimiter="," if suffix == ".csv" else "\t", strict=True))
        case ".jsonl":
            numbered = enumerate(file.read_text(encoding="utf-8").split("\n"), 1)
            return [_object(line, number) for number, line in numbered if line.strip()]
        case ".parquet":
            from pyarrow import parquet

            found: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
            return found
    raise ValueError(f"its suffix must be one of {', '.join(SUFFIXES)}")


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f'line {number} is not an object such as {{"path": "a.jpg", "label": "cat"}}: {line[:80]!r}')
    return values


def _text(value: Any) -> str:
    """The cell as text, because a label may be a number in one format and text in another."""
    return "" if value is None or value != value else str(value).strip()  # NaN is not itself
