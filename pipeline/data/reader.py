"""Reads many files: in several processes, in the order given, and each only once until it changes."""

import hashlib
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
from pipeline.harness.fingerprints import code_fingerprint
from pipeline.workspace import Bar

_PROJECT = Path(__file__).resolve().parents[2]
_FEW = 2000
"""Below this threads are done before processes have started."""
_BLOCK = 4096
"""Files whose facts are in memory and not yet handed on."""
_FACTS = [field.name for field in fields(Facts)]
_TUPLES = ("conversions", "flags")
_COLUMNS = ["path", "state", "made_by", *_FACTS]


class FactsCache:
    """Facts by path, for as long as the file's size, times and inode stand, and the code that found them."""

    def __init__(self, file: Path, *, background: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        code = json.dumps([background, code_fingerprint("pipeline.data.facts", _PROJECT)], sort_keys=True)
        self._made_by = hashlib.sha256(code.encode()).digest()
        try:
            self._db = _open_table(file)
        except sqlite3.DatabaseError:  # damaged, or of another version: nothing in it cannot be found again
            file.unlink()
            self._db = _open_table(file)

    def close(self) -> None:
        self._db.close()

    def get(self, files: Sequence[tuple[str, str]]) -> list[Facts | None]:
        """What is known of each file (path, state), a block of them at once."""
        query = f"SELECT * FROM facts WHERE made_by = ? AND path IN ({', '.join('?' * len(files))})"
        rows = self._db.execute(query, (self._made_by, *(os.fsencode(path) for path, _ in files)))
        known = {(os.fsdecode(path), state): facts for path, state, _, *facts in rows}
        return [_from_columns(known[file]) if file in known else None for file in files]

    def put(self, rows: Iterable[tuple[str, str, Facts]]) -> None:
        """Keep facts by path and state."""
        values = ((os.fsencode(path), state, self._made_by, *_to_columns(facts)) for path, state, facts in rows)
        with self._db:
            self._db.executemany(f"INSERT OR REPLACE INTO facts VALUES ({', '.join('?' * len(_COLUMNS))})", values)


def read_facts(
    root: Path, paths: Iterable[str], *, background: str, workers: int, bar: Bar, cache: FactsCache | None = None
) -> Iterator[Facts]:
    """Yield the facts of each file below `root`, in order; the same whatever the number of workers.

    One that takes too long is a problem like others. Raises OSError where a worker was killed.
    """
    pools, began, read = _Pools(partial(look_at, background=background), workers), time.monotonic(), 0
    with closing(pools):
        names_of_all = (os.path.join(root, path) for path in paths)  # noqa: PTH118 (much faster than pathlib)
        while names := list(islice(names_of_all, _BLOCK)):
            block = [(name, _state(name)) for name in names]
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
                    if _lasts(facts, state)
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
    """Threads for a few files, processes for many; each begun when it is first needed."""

    def __init__(self, look: Look, workers: int) -> None:
        self._look, self._count = look, workers or os.cpu_count() or 1
        self._begun: dict[bool, Workers] = {}

    def look_at(self, paths: Sequence[Path]) -> Iterator[Facts]:
        if not paths:
            return iter(())
        processes = len(paths) > _FEW or True in self._begun
        if processes not in self._begun:
            self._begun[processes] = Workers(self._look, self._count, processes=processes)
        return self._begun[processes].look_at(paths)

    def close(self) -> None:
        for workers in self._begun.values():
            workers.close()


def _state(path: str) -> str:
    """What changes when a file does; empty where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _lasts(facts: Facts, state: str) -> bool:
    """Whether the answer holds until the file changes: permissions, memory and time may come back without that."""
    passing = ("no permission", "not enough memory", "cannot be read", TOO_LONG)
    return bool(state) and not facts.problem.startswith(passing)


def _to_columns(facts: Facts) -> list[object]:
    values = (getattr(facts, name) for name in _FACTS)
    return [json.dumps(v) if isinstance(v, tuple) else v for v in values]


def _from_columns(values: Sequence[Any]) -> Facts:
    columns: list[Any] = [
        tuple(json.loads(v)) if name in _TUPLES else v for name, v in zip(_FACTS, values, strict=True)
    ]
    return Facts(*columns)
