"""Reading and writing files: every write of this project goes through here, and is whole or not at all."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_file(path: Path, *, flush: bool = True) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends without an error.

    A kill at any moment leaves the old file or the new one, flushed to disk. The folder must exist. Without `flush` a
    power cut may lose it: for very many files that would be made again.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new, empty folder that becomes `path` when the block ends without an error. `path` must not exist."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file's content; returns `target`."""
    with source.open("rb") as content, atomic_file(target) as file:
        shutil.copyfileobj(content, file)
    return target


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8. A surrogate, as names that are not UTF-8 have them, is written as an escape."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a JSON file that people can read. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    write_text(path, text + "\n")


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yield the values of a file with a JSON value per line."""
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from (json.loads(line) for line in file)


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write flat dataclasses, all of one kind, as a JSON object per line; line breaks inside names are escaped."""
    names: list[str] = []
    with atomic_file(path) as file:
        for row in rows:
            names = names or [field.name for field in dataclasses.fields(row)]
            file.write(json.dumps({name: getattr(row, name) for name in names}).encode() + b"\n")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the header first, as a CSV file in UTF-8."""
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", errors="backslashreplace")
        csv.writer(text, lineterminator="\n").writerows(rows)
        text.detach()  # flushes, and leaves the file open


def digest(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys. Raises ValueError for NaN and infinity."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files below `folder`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return digest({p.relative_to(folder).as_posix(): file_digest(p) for p in files})


def file_state(path: str, *, of_this_copy: bool = False) -> str:
    """Text that changes when a file does, or a link, or what the link leads to; `gone` where there is none.

    Size and modification time, which a copy of a folder keeps. With `of_this_copy` also the inode and the time of the
    last change of any kind, which cannot be set by hand: for a cache that must not outlive the file itself.
    """
    try:
        link = file = os.lstat(path)
        if stat.S_ISLNK(link.st_mode):
            file = os.stat(path)  # noqa: PTH116 (strings, because there may be a million files: pathlib is ten times slower)
    except OSError:
        return "gone"
    own = f" {file.st_ino} {file.st_ctime_ns}" if of_this_copy else ""
    return f"{link.st_mtime_ns} {file.st_size} {file.st_mtime_ns}{own}"
