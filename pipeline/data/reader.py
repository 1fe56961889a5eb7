"""Read many files: in several processes, in the given order, and each only once until it changes."""

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.data.facts import Facts, look_at
from pipeline.data.workers import TOO_LONG, Look, Workers
from pipeline.files import file_state
from pipeline.workspace import Bar

_FEW = 2000
"""Up to this many files, threads finish before processes would have started."""
_BLOCK = 4096
"""Files that are read, and whose facts are in memory, at once."""
_FACTS = [field.name for field in fields(Facts)]
_TUPLES = ("conversions", "flags")
_COLUMNS = ["path", "state", "made_by", *_FACTS]


class FactsCache:
    """Facts by path. They hold until the file changes (its state), or what made the facts does (`made_by`)."""

    def __init__(self, file: Path, *, made_by: str) -> None:
        """Open or create the cache in `file`.

        `made_by` is a digest of all that facts depend on beside the file itself: the code of `pipeline.data.facts`
        and the background colour. Facts that were cached with another digest are not used.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self._made_by = made_by
        try:
            self._db = _open_table(file)
        except sqlite3.DatabaseError:  # damaged, or of another version: everything in it can be computed again
            file.unlink()
            self._db = _open_table(file)

    def close(self) -> None:
        self._db.close()

    def get(self, files: Sequence[tuple[str, str]]) -> list[Facts | None]:
        """The facts of each file (path, state), None for those that are not cached."""
        query = f"SELECT * FROM facts WHERE made_by = ? AND path IN ({', '.join('?' * len(files))})"
        rows = self._db.execute(query, (self._made_by, *(os.fsencode(path) for path, _ in files)))
        known = {(os.fsdecode(path), state): facts for path, state, _, *facts in rows}
        return [_from_columns(known[file]) if file in known else None for file in files]

    def put(self, rows: Iterable[tuple[str, str, Facts]]) -> None:
        """Store facts by path and state."""
        values = ((os.fsencode(path), state, self._made_by, *_to_columns(facts)) for path, state, facts in rows)
        with self._db:
            self._db.executemany(f"INSERT OR REPLACE INTO facts VALUES ({', '.join('?' * len(_COLUMNS))})", values)


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
            block = [(name, file_state(name, of_this_copy=True)) for name in names]
            known = cache.get(block) if cache else [None] * len(block)
            new = [item for item, facts in zip(block, known, strict=True) if facts is None]
            bar.advance(len(block) - len(new))
            found = []
            for facts in pools.look_at([Path(name) for name, _ in new]):
                found.append(facts)
                read += 1
                bar.advance(note=f"{read / (time.monotonic() - began):.0f} per second")
            if cache:
                cache.put(
                    (name, state, facts)
                    for (name, state), facts in zip(new, found, strict=True)
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
