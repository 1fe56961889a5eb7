"""The register: every file that was found and what became of it, in a private database on disk.

Rows rather than objects, for there may be a million: memory does not grow with their number.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.data.facts import Facts
from pipeline.data.found import SPLITS, UNLABELLED, Found
from pipeline.data.ledger import VERDICTS, LedgerLine, judge
from pipeline.data.manifest import Sample

_TABLES = """
CREATE TABLE found (id INTEGER PRIMARY KEY, path BLOB, label TEXT, split TEXT, "group" TEXT, problem TEXT, ignored);
CREATE TABLE file (
    id INTEGER PRIMARY KEY, path BLOB, verdict TEXT, reason TEXT,
    used INTEGER,  -- whether it becomes a sample; the columns below are of those that can
    label TEXT, split TEXT, "group" TEXT, file_sha256 TEXT, sha256 TEXT, width INTEGER, height INTEGER
);
"""
_SAMPLE = 'path, label, split, "group", file_sha256, sha256, width, height'
_AT_ONCE = 4096


class Register:
    """All files by number (from 0, as they were found): what was found, what was seen of it, what became of it."""

    def __init__(self) -> None:
        self.db = sqlite3.connect("", isolation_level=None)  # a file without a name, gone when it is closed
        self.db.executescript(_TABLES)
        self.db.execute("PRAGMA journal_mode = OFF")
        self.db.execute("BEGIN")  # and no end, for nobody else reads it

    def close(self) -> None:
        self.db.close()

    def add_found(self, found: Iterable[Found]) -> None:
        """Enter what a source finds."""
        rows = (
            (i, os.fsencode(f.path), f.label, f.split or "", f.group, f.problem, f.ignored) for i, f in enumerate(found)
        )
        self.db.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def count_to_read(self) -> int:
        return self._count("found WHERE problem = ''")

    def paths_to_read(self) -> Iterator[str]:
        """The files without a problem, in order."""
        rows = self.db.execute("SELECT path FROM found WHERE problem = '' ORDER BY id")
        return (os.fsdecode(path) for (path,) in rows)

    def add_facts(self, facts: Iterable[Facts]) -> Iterator[Facts]:
        """Judge all files by the `facts` of those to read; yields the facts of each file while they are entered."""
        answers = iter(facts)
        found = self.db.execute('SELECT id, path, label, split, "group", problem, ignored FROM found ORDER BY id')
        for i, path, label, split, group, problem, ignored in found:
            fact = Facts(problem=problem) if problem else next(answers)
            line = LedgerLine("", "ignored", problem) if ignored else judge("", fact)
            sample = (label, split, group or fact.sha256, fact.file_sha256, fact.sha256, fact.width, fact.height)
            self.db.execute(
                "INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (i, path, line.verdict, line.reason, not fact.problem, *sample),
            )
            yield fact
        self.db.execute("CREATE INDEX file_by_path ON file (path)")

    def samples(self, where: str = "TRUE", *values: object, limit: int = -1) -> Iterator[Sample]:
        """The files that are used, by path; `where` is SQL."""
        rows = self.db.execute(
            f"SELECT {_SAMPLE} FROM file WHERE used AND ({where}) ORDER BY path LIMIT ?", (*values, limit)
        )
        return (_sample(*row) for row in rows)

    def samples_by_number(self, numbers: Iterable[int]) -> dict[int, Sample]:
        wanted = sorted(set(numbers))
        found: dict[int, Sample] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            rows = self.db.execute(f"SELECT id, {_SAMPLE} FROM file WHERE id IN ({marks(some)})", some)
            found.update((i, _sample(*row)) for i, *row in rows)
        return found

    def count_used(self) -> int:
        return self._count("file WHERE used")

    def classes(self) -> list[str]:
        """The labels of all samples that have one, in order."""
        rows = self.db.execute("SELECT DISTINCT label FROM file WHERE used AND split != ?", (UNLABELLED,))
        return sorted(label for (label,) in rows)

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples by split (those that have some) and class."""
        rows = self.db.execute("SELECT split, label, count(*) FROM file WHERE used GROUP BY split, label")
        counted = {(split, label): count for split, label, count in rows}
        splits = [x for x in SPLITS if any(split == x for split, _ in counted)]
        return {split: {label: counted.get((split, label), 0) for label in self.classes()} for split in splits}

    def ledger(self, verdict: str = "", *, limit: int = -1) -> Iterator[LedgerLine]:
        """The lines of all files, or of those with a verdict, as they were found."""
        rows = self.db.execute(
            "SELECT path, verdict, reason FROM file WHERE ? IN ('', verdict) ORDER BY id LIMIT ?", (verdict, limit)
        )
        return (LedgerLine(os.fsdecode(path), verdict, reason) for path, verdict, reason in rows)

    def count_verdicts(self) -> dict[str, int]:
        counted = dict(self.db.execute("SELECT verdict, count(*) FROM file GROUP BY verdict"))
        return {verdict: counted.get(verdict, 0) for verdict in VERDICTS}

    def reject(self, reasons: Mapping[str, str]) -> None:
        """Use these samples, by path, no longer."""
        self.db.executemany(
            "UPDATE file SET used = FALSE, verdict = 'rejected', reason = ? WHERE used AND path = ?",
            ((reason, os.fsencode(path)) for path, reason in reasons.items()),
        )

    def flag(self, remarks: Mapping[str, str]) -> None:
        """Say that these samples, by path, are doubtful."""
        self.db.executemany(
            "UPDATE file SET verdict = 'flagged', reason = ? || iif(reason = '', '', '; ' || reason) "
            "WHERE used AND path = ?",
            ((remark, os.fsencode(path)) for path, remark in remarks.items()),
        )

    def rename_groups(self, names: Mapping[str, str]) -> None:
        """Give groups other names, and so join those that get the same."""
        if names:
            self.db.execute('CREATE INDEX file_by_group ON file ("group")')
            self.db.executemany(
                'UPDATE file SET "group" = ? WHERE "group" = ?', ((new, old) for old, new in names.items())
            )

    def _count(self, of: str) -> int:
        [count] = self.db.execute(f"SELECT count(*) FROM {of}").fetchone()
        return int(count)


def _sample(path: bytes, *rest: object) -> Sample:
    return Sample(os.fsdecode(path), *rest)  # type: ignore[arg-type]


def marks(values: Sequence[object]) -> str:
    """The placeholders of so many values in SQL."""
    return ", ".join("?" * len(values))
