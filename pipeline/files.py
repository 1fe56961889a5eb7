"""Small text files: JSON that people can read, JSON lines, and writes that are whole or not at all."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, readable by people."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write flat dataclasses, all of one kind, as a JSON object per line; line breaks inside names are escaped."""
    names: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            names = names or [field.name for field in dataclasses.fields(row)]
            file.write(json.dumps({name: getattr(row, name) for name in names}) + "\n")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that replaces `path` when the block ends well: a kill leaves the old file or the new one."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that whoever finds `path` finds it complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
