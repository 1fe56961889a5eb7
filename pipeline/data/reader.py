"""Read many files: in several processes, in the given order, and each only once until it changes."""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pipeline.data.facts import Facts, look_at
from pipeline.data.image_file import image_file_state
from pipeline.data.workers import TOO_LONG, Look, Workers
from pipeline.kept import drop
from pipeline.workspace import Bar

_FEW = 2000
"""Up to this many files, threads finish before processes would have started."""
_BLOCK = 4096
"""Files that are read, and whose facts are in memory, at once."""
_NOT_ITS_FAULT = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
                  sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR)  # fmt: skip
"""What SQLite says of a full or broken disk, or of another process, and not of a damaged file."""
_Result = TypeVar("_Result")
_FACTS = [field.name for field in fields(Facts)]
_TUPLES = ("conversions", "flags")
_COLUMNS = ["path", "state", "seal", *_FACTS]
"""`seal` is a checksum of `made_by` and all other columns."""


class FactsCache:
    """Facts by path. They hold until the file changes (its state), or what made the facts does (`made_by`)."""

    def __init__(self, file: Path, *, made_by: str) -> None:
        """Open or create the cache in `file`.

        `made_by` is a digest of all that facts depend on beside the file itself: the code of `pipeline.data.facts`
        and the background colour. Facts that were cached with another digest are not used.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self._made_by, self._file = made_by, file
        self._db: sqlite3.Connection | None = None
        self._try(self._open)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()

    def get(self, files: Sequence[tuple[str, str]]) -> list[Facts | None]:
        """The facts of each file (path, state), None for those that are not cached."""
        query = f"SELECT * FROM facts WHERE path IN ({', '.join('?' * len(files))})"
        paths = [os.fsencode(path) for path, _ in files]
        rows = self._try(lambda: self._open().execute(query, paths).fetchall()) or []
        whole = [row for row in rows if row[2] == self._seal(row[0], row[1], row[3:])]
        known = {(os.fsdecode(path), state): facts for path, state, _, *facts in whole}
        return [_from_columns(known[file]) if file in known else None for file in files]

    def put(self, rows: Iterable[tuple[str, str, Facts]]) -> None:
        """Store facts by path and state."""
        columns = ((os.fsencode(path), state, _to_columns(facts)) for path, state, facts in rows)
        values = [(path, state, self._seal(path, state, facts), *facts) for path, state, facts in columns]
        self._try(lambda: self._store(values))

    def _store(self, values: Sequence[Sequence[object]]) -> None:
        with self._open() as db:
            db.executemany(f"INSERT OR REPLACE INTO facts VALUES ({', '.join('?' * len(_COLUMNS))})", values)

    def _open(self) -> sqlite3.Connection:
        self._db = self._db or _open_table(self._file)
        return self._db

    def _try(self, do: Callable[[], _Result]) -> _Result | None:
        """The result of `do`, or None where the file is damaged or of another version: then it is begun again."""
        try:
            return do()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # a damaged name of a column is no text
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_ITS_FAULT:
                raise OSError(f"{self._file}: {error}") from None
            self.close()
            self._db = None
            drop(self._file)
            self._file.with_name(f"{self._file.name}-journal").unlink(missing_ok=True)  # else rolled back into it
            return None

    def _seal(self, path: bytes, state: str, facts: Sequence[object]) -> str:
        return hashlib.sha256(repr((path, state, self._made_by, tuple(facts))).encode()).hexdigest()


def read_facts(
    root: Path, paths: Iterable[str], *, background: str, workers: int, bar: Bar, cache: FactsCache | None = None
) -> Iterator[Facts]:
    """Yield the facts of each file below `root`, in the order of `paths`.

    Args:
        background: colour behind transparent pixels.
        workers: number of threads or processes; 0 for one per core. The facts are the same.
        bar: is advanced by one per file.
        cache: facts of files that have not changed; new facts are added to it.

    A file that cannot be read, or takes too long, gives facts with a `problem`. Raises OSError if a process is killed.
    """
    pools, began, read = _Pools(partial(look_at, background=background), workers), time.monotonic(), 0
    with closing(pools):
        names_of_all = (os.path.join(root, path) for path in paths)  # noqa: PTH118 (ten times faster than pathlib)
        while names := list(islice(names_of_all, _BLOCK)):
            block = [(name, image_file_state(name)) for name in names]
            known = cache.get(block) if cache else [None] * len(block)
            new = [item for item, facts in zip(block, known, strict=True) if facts is None]
            bar.advance(len(block) - len(new))
            found: list[Facts] = []
            try:
                for facts in pools.look_at([Path(name) for name, _ in new]):
                    found.append(facts)
                    read += 1
                    bar.advance(note=f"{read / (time.monotonic() - began):.0f} per second")
            finally:  # also where the run is asked to stop
                if cache:
                    cache.put(
                        (name, state, facts)
                        for (name, state), facts in zip(new, found, strict=False)
                        if _is_lasting(facts, state)
                    )
            fresh = iter(found)
            yield from (facts if facts is not None else next(fresh) for facts in known)


def _open_table(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file, timeout=60)
    db.execute(f"CREATE TABLE IF NOT EXISTS facts (path BLOB PRIMARY KEY, {', '.join(_COLUMNS[1:])})")
    if [column[0] for column in db.execute("SELECT * FROM facts LIMIT 0").description] != _COLUMNS:
        raise sqlite3.DatabaseError("made by another version")
    return db


class _Pools:
    """Threads for a few files, processes for many; both are started when first needed."""

    def __init__(self, look: Look, workers: int) -> None:
        self._look, self._count = look, workers or os.cpu_count() or 1
        self._started: dict[bool, Workers] = {}

    def look_at(self, paths: Sequence[Path]) -> Iterator[Facts]:
        if not paths:
            return iter(())
        processes = len(paths) > _FEW or True in self._started
        if processes not in self._started:
            self._started[processes] = Workers(self._look, self._count, processes=processes)
        return self._started[processes].look_at(paths)

    def close(self) -> None:
        for workers in self._started.values():
            workers.close()


def _is_lasting(facts: Facts, state: str) -> bool:
    """Whether facts hold until the file changes. Lack of permission, memory or time may end without that."""
    passing = ("no permission", "not enough memory", "cannot be read", TOO_LONG)
    return state != "gone" and not facts.problem.startswith(passing)


def _to_columns(facts: Facts) -> list[object]:
    values = (getattr(facts, name) for name in _FACTS)
    return [json.dumps(v) if isinstance(v, tuple) else v for v in values]


def _from_columns(values: Sequence[Any]) -> Facts:
    columns: list[Any] = [
        tuple(json.loads(v)) if name in _TUPLES else v for name, v in zip(_FACTS, values, strict=True)
    ]
    return Facts(*columns)
