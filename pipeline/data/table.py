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
    needed = ["path", "label", *([group] if group else [])]
    columns = list(dict.fromkeys(name for row in rows[:100] for name in row))
    if missing := [name for name in needed if name not in columns]:
        raise SettingsError(f"data.root={file} has no column {missing[0]!r}; it has {columns}")
    return [
        Row(_text(r["path"]), _text(r.get("label")), _text(r.get("split")), _text(r.get(group or ""))) for r in rows
    ]


def _read(file: Path) -> list[dict[str, Any]]:
    match file.suffix.lower():
        case ".csv" | ".tsv" as suffix:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                return list(csv.DictReader(lines, delimiter="," if suffix == ".csv" else "\t", strict=True))
        case ".jsonl":
            return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        case ".parquet":
            from pyarrow import parquet

            found: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
            return found
    raise ValueError(f"its suffix is none of {', '.join(SUFFIXES)}")


def _text(value: Any) -> str:
    """The cell as text: a label may be a number in one format and text in another."""
    return "" if value is None or value != value else str(value).strip()  # NaN is not itself
