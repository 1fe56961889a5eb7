"""Reading and writing files: every write of this project goes through here, and is whole or not at all."""

import csv
import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.cells import to_cell
from pipeline.numbers import check_numbers

FULL = (errno.ENOSPC, errno.EDQUOT)
"""No space on the disk, or no more for this user."""


def _go_on(step: str, path: Path) -> None:
    del step, path


before_step: Callable[[str, Path], None] = _go_on
"""Called before each step on the disk (`write`, `flush`, `rename`, `link`, `remove`) with the file or folder that it
changes. A test replaces it, to let one step fail or to kill the process there."""


class DiskFullError(OSError):
    """There is no room for a file; the message says for which, how much it needs, and how to go on."""

    def __init__(self, path: Path, needed: int) -> None:
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        super().__init__(
            f"{path}: no space left: {needed:,} bytes or more are needed, {free:,} are free. Make room (`dvc gc "
            "--workspace`, old folders below runs/ or .unfreeze/scratch/), then type the same command again: it goes "
            "on from what is kept"
        )


class CheckedFile(io.FileIO):
    """A file to be written, unbuffered and whole; an error names the file that it stands for."""

    def __init__(self, file: Path, mode: str, *, shown: Path | None = None) -> None:
        super().__init__(file, mode)
        self._shown = shown or file

    def write(self, data: Any) -> int:
        """Write all of `data`. Raises DiskFullError, or OSError with the file's name."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            with self._named(len(rest)):
                before_step("write", self._shown)
                rest = rest[super().write(rest) :]
        return size

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        with self._named(0):
            before_step("flush", self._shown)
            os.fsync(super().fileno())

    def fileno(self) -> int:
        """Refuse: Pillow would write around this class."""
        raise io.UnsupportedOperation("fileno")

    @contextmanager
    def _named(self, needed: int) -> Iterator[None]:
        try:
            yield
        except DiskFullError:
            raise
        except OSError as error:
            if error.errno in FULL:
                raise DiskFullError(self._shown, self.tell() + needed) from error
            raise OSError(error.errno, error.strerror, str(self._shown)) from error


@contextmanager
def atomic_file(path: Path, *, flush: bool = True) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends without an error.

    A kill at any moment leaves the old file or the new one, flushed to disk. The folder must exist. Without `flush` a
    power cut may lose it: for very many files that would be made again. Raises DiskFullError.
    """
    draft = _draft(path)
    draft.unlink(missing_ok=True)
    try:
        with CheckedFile(draft, "xb", shown=path) as raw:  # a new file: never through a link that lies there
            file = io.BufferedWriter(raw)
            yield file
            file.flush()
            if flush:
                raw.sync()
        rename(draft, path, flush=flush)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new, empty folder that becomes `path` when the block ends without an error. `path` must not exist."""
    draft = _draft(path)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        rename(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _draft(path: Path) -> Path:
    """What a file or folder is called until it is whole. The longest names leave no room for more."""
    name = os.fsencode(path.name)
    short = path.name if len(name) < 200 else hashlib.sha256(name).hexdigest()
    return path.with_name(f".{short}.{os.getpid()}")


def rename(source: Path, target: Path, *, flush: bool = True) -> None:
    """Rename a file, over one that is there, or a folder; with `flush`, a power cut does not undo it."""
    before_step("rename", target)
    source.replace(target)
    if flush:
        _sync_folder(target.parent)


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder, or copy it where that is another disk, or another mount of the same one."""
    try:
        rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        for folder, _, names in os.walk(source):
            into = target / Path(folder).relative_to(source)
            into.mkdir()
            for name in names:
                copy_file(Path(folder) / name, into / name)


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where its disk does not know such. It must not be written to any more."""
    before_step("link", target)
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        copy_file(source, target)


def remove_folder(path: Path) -> None:
    """Remove a folder and what is in it, if it is there."""
    before_step("remove", path)
    shutil.rmtree(path, ignore_errors=True)


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file's content; returns `target`."""
    with source.open("rb") as content, atomic_file(target) as file:
        shutil.copyfileobj(content, file)
    return target


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8. A surrogate, as names that are not UTF-8 have them, is written as an escape."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a JSON file that people can read. Raises NumbersError, with the place, for NaN and infinity."""
    check_numbers(value, of=path.name)
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
    """Write rows, the header first, as a CSV file in UTF-8. `cells.read_cells` reads it."""
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", errors="backslashreplace")
        csv.writer(text, lineterminator="\n").writerows([to_cell(cell) for cell in row] for row in rows)
        text.detach()  # flushes, and leaves the file open


def digest(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys. Raises ValueError for NaN and infinity."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, *, without: str | None = None) -> str:
    """SHA-256 of the names and contents of all files below `folder`, `without` that one at its top."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / str(without))
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
