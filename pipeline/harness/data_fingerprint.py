"""The fingerprint of the images: of their names and contents, so that a copy of them elsewhere has the same.

It is taken at every `dvc repro`, and there may be a million images. So what was read is kept in `.unfreeze/contents/`:
a file whose size and modification time are as they were is not read again. A change that keeps both is found by
`unfreeze verify` only, which then forgets what is kept here.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.data.dropped import drop_digest
from pipeline.data.sources import source_files, source_root
from pipeline.files import digest, file_state, remove_folder
from pipeline.kept import read_kept, read_sealed, write_kept, write_sealed
from pipeline.settings import DataSource
from pipeline.workspace import Bar, no_bar

CONTENTS = "contents"
"""The folder below `.unfreeze/` where contents are kept."""

_KEY, _CONTENT = 16, 32
"""Bytes of a row of the kept table: a digest of a file's name and state, and the SHA-256 of its content."""
_READERS = 8
"""Threads that read files: a disk in the network answers several at once."""
_BLOCK = 4096
"""Files that are looked up at once."""
_SAVE_S = 30
"""What is read is kept this often, so that a kill costs no more."""
_RECENT_NS = 3_000_000_000
"""A file that was written less than this ago may change again without a new time: disks count in up to two seconds."""

OpenBar = Callable[[int], AbstractContextManager[Bar]]


def fingerprint_source(data: DataSource, *, kept: Path | None = None, progress: OpenBar = no_bar) -> dict[str, Any]:
    """Describe the images: the result changes when a file is added, removed, renamed or changed.

    It is made of the names and contents of all files that the images come from, and of the table that `data.drop`
    names. In the folder `kept`, contents are kept from call to call. Raises SettingsError if the images are not there.
    """
    files = source_files(data)
    record: dict[str, Any] = {"name": data.name, "root": data.root, "dataset": data.dataset}
    if (dropped := drop_digest(data)) is not None:
        record["drop"] = dropped
    if data.root is None:
        return record
    count, states = _digest_states(files)
    if kept is None:
        return record | _read_all(source_files(data), _Table(None), progress(count))
    name = digest([data.name, str(source_root(data).resolve())])[:_KEY]
    summary = kept / f"{name}.json"
    known = read_kept(summary)
    if known is not None and known["states"] == states:
        return {**record, **known["found"]}
    table = _Table(kept / f"{name}.table")
    found = _read_all(source_files(data), table, progress(count))
    if table.is_lasting:
        write_kept(summary, {"states": table.states.hexdigest(), "found": found})
    return record | found


def forget_contents(kept: Path) -> None:
    """Forget all that is kept: the next fingerprint reads every file."""
    remove_folder(kept)


def _digest_states(files: Iterable[tuple[str, str]]) -> tuple[int, str]:
    """The number of files, and one digest of all their names and states."""
    states, count = hashlib.sha256(), 0
    for name, path in files:
        states.update(_named(name, file_state(path)))
        count += 1
    return count, states.hexdigest()


@dataclass
class _Table:
    """Contents of files by name and state; `file` keeps them, None only for this call."""

    file: Path | None
    known: dict[bytes, bytes] = field(default_factory=dict)
    rows: bytearray = field(default_factory=bytearray)
    """What `file` will hold."""
    states: Any = field(default_factory=hashlib.sha256)
    """The digest of all names and states that were looked up."""
    is_lasting: bool = True
    """Whether all that was looked up holds until a state changes."""

    def __post_init__(self) -> None:
        width, stored = _KEY + _CONTENT, read_sealed(self.file) if self.file else None
        for i in range(0, len(stored or b""), width):
            row = (stored or b"")[i : i + width]
            self.known[row[:_KEY]] = row[_KEY:]

    def look_up(self, block: list[tuple[str, str]], pool: ThreadPoolExecutor) -> Iterator[bytes]:
        """Yield the content of each (name, path), read where it is not known."""
        named = [_named(name, file_state(path)) for name, path in block]
        keys = [hashlib.sha256(state).digest()[:_KEY] for state in named]
        new = iter(pool.map(_read, [path for (_, path), key in zip(block, keys, strict=True) if key not in self.known]))
        for state, key in zip(named, keys, strict=True):
            self.states.update(state)
            content, is_lasting = (self.known[key], True) if key in self.known else next(new)
            if is_lasting:
                self.rows += key + content
            self.is_lasting &= is_lasting
            yield content

    def save(self, *, whole: bool) -> None:
        """Keep what was looked up; where that is not the `whole`, also what was known before."""
        if self.file:
            before = b"" if whole else b"".join(key + content for key, content in self.known.items())
            write_sealed(self.file, before + self.rows)


def _read_all(files: Iterable[tuple[str, str]], table: _Table, bar: AbstractContextManager[Bar]) -> dict[str, Any]:
    """Digest the names and contents of all files. What was read is kept, also where the run is asked to stop."""
    fingerprint, count, saved = hashlib.sha256(), 0, time.monotonic()
    pool, files, is_whole = ThreadPoolExecutor(_READERS), iter(files), False
    try:
        with bar as shown:
            while block := list(islice(files, _BLOCK)):
                for (name, _), content in zip(block, table.look_up(block, pool), strict=True):
                    fingerprint.update(_named(name) + content)
                    count += 1
                    shown.advance()
                    if time.monotonic() - saved > _SAVE_S:
                        table.save(whole=False)
                        saved = time.monotonic()
        is_whole = True
    finally:
        pool.shutdown(cancel_futures=True)
        table.save(whole=is_whole)
    return {"files": count, "fingerprint": fingerprint.hexdigest()}


def _read(path: str) -> tuple[bytes, bool]:
    """What stands for the content of a path, and whether that holds until its state changes."""
    try:
        found = os.stat(path)  # noqa: PTH116 (strings, as in `Source.files`)
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
            return _stand_in("folder" if stat.S_ISDIR(found.st_mode) else "no file"), True
        with open(path, "rb") as file:  # noqa: PTH123
            content = hashlib.file_digest(file, "sha256").digest()
    except (FileNotFoundError, NotADirectoryError):
        return _stand_in("gone"), True
    except OSError as error:
        return _stand_in(errno.errorcode.get(error.errno or 0, "unreadable")), False
    return content, abs(time.time_ns() - found.st_mtime_ns) > _RECENT_NS


def _stand_in(word: str) -> bytes:
    return hashlib.sha256(f"unfreeze: {word}".encode()).digest()


def _named(*parts: str) -> bytes:
    return "".join(f"{part}\0" for part in parts).encode(errors="surrogateescape")
