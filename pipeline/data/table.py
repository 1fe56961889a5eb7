"""A table of images: CSV, TSV, JSON lines or Parquet with columns `path`, `label` and, if wanted, `split`.

Apart from the sources, because the `config` stage asks which files a table names, and has no time to load a decoder.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.settings import SettingsError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; what it leaves open is empty."""

    path: str
    label: str
    split: str
    group: str


def read_table(file: Path, *, group: str | None) -> list[Row]:
    """Read a table; `group` names the column whose equal values stay in one split. Raises SettingsError."""
    try:
        rows = _read(file)
    except (OSError, ValueError, csv.Error) as error:
        raise SettingsError(f"data.root={file} cannot be read as a table: {error}") from None
    if not rows:
        raise SettingsError(f"data.root={file} has no rows: it needs columns path and label, and a row for each image")
    needed = ["path", "label", *([group] if group else [])]
    columns = list(dict.fromkeys(name for row in rows[:100] for name in row))
    if missing := [name for name in needed if name not in columns]:
        raise SettingsError(
            f"data.root={file} has no column {missing[0]!r}; it has {columns}: name it so (cells end with a comma in "
            ".csv, with a tab in .tsv)"
        )
    return [
        Row(_text(r["path"]), _text(r.get("label")), _text(r.get("split")), _text(r.get(group or ""))) for r in rows
    ]


def _read(file: Path) -> list[dict[str, Any]]:
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
    raise ValueError(f"its suffix is none of {', '.join(SUFFIXES)}")


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f'line {number} is no object such as {{"path": "a.jpg", "label": "cat"}}: {line[:80]!r}')
    return values


def _text(value: Any) -> str:
    """The cell as text: a label may be a number in one format and text in another."""
    return "" if value is None or value != value else str(value).strip()  # NaN is not itself
