"""The register: every file that a source found and what became of it, in a temporary SQLite database.

There may be a million files: in a database, memory does not grow with their number. No other module contains SQL on
these tables.
"""

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pipeline.data.facts import Facts
from pipeline.data.found import SPLITS, UNLABELLED, FoundFile
from pipeline.data.ledger import VERDICTS, LedgerLine, judge
from pipeline.data.manifest import Sample

_TABLES = """
CREATE TABLE found (id INTEGER PRIMARY KEY, path BLOB, label TEXT, split TEXT, "group" TEXT, problem TEXT, ignored);
CREATE TABLE file (
    id INTEGER PRIMARY KEY, path BLOB, verdict TEXT, reason TEXT,
    used INTEGER,  -- whether it becomes a sample; the columns below are only filled for files that can be decoded
    label TEXT, split TEXT, "group" TEXT, file_sha256 TEXT, sha256 TEXT, width INTEGER, height INTEGER
);
"""
_SAMPLE = 'path, label, split, "group", file_sha256, sha256, width, height'
_AT_ONCE = 4096


class Register:
    """All files, numbered from 0 in the order in which they were found.

    Fill it with `add_found`, then with `add_facts`. A file is used until `reject` or `keep_training_groups` drops it.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # an unnamed file, deleted when it is closed
        self._db.executescript(_TABLES)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("BEGIN")  # never committed: nobody else reads the database

    def close(self) -> None:
        self._db.close()

    # Filling it

    def add_found(self, found: Iterable[FoundFile]) -> None:
        """Add the files that a source found."""
        rows = (
            (i, os.fsencode(f.path), f.label, f.split or "", f.group, f.problem, f.ignored) for i, f in enumerate(found)
        )
        self._db.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def count_to_read(self) -> int:
        """The number of files in `paths_to_read`."""
        return self._count("found WHERE problem = ''")

    def paths_to_read(self) -> Iterator[str]:
        """The paths of all files without a known problem, in order."""
        rows = self._db.execute("SELECT path FROM found WHERE problem = '' ORDER BY id")
        return (os.fsdecode(path) for (path,) in rows)

    def found_by_path(self) -> Iterator[FoundFile]:
        """What a source found, sorted by the bytes of the paths."""
        rows = self._db.execute('SELECT path, label, split, "group", problem, ignored FROM found ORDER BY path, id')
        for path, label, split, group, problem, ignored in rows:
            yield FoundFile(os.fsdecode(path), label, split or None, group, problem, bool(ignored))

    def add_facts(self, facts: Iterable[Facts]) -> Iterator[Facts]:
        """Judge every file. `facts` are those of `paths_to_read`, in order. Yield the facts of all files."""
        answers = iter(facts)
        found = self._db.execute('SELECT id, path, label, split, "group", problem, ignored FROM found ORDER BY id')
        for i, path, label, split, group, problem, ignored in found:
            fact = Facts(problem=problem) if problem else next(answers)
            line = LedgerLine("", "ignored", problem) if ignored else judge("", fact)
            sample = (label, split, group or fact.sha256, fact.file_sha256, fact.sha256, fact.width, fact.height)
            self._db.execute(
                "INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (i, path, line.verdict, line.reason, not fact.problem, *sample),
            )
            yield fact
        self._db.execute("CREATE INDEX file_by_path ON file (path)")

    # Samples

    def samples(
        self, *, split: str | None = None, label: str | None = None, limit: int | None = None
    ) -> Iterator[Sample]:
        """The files in use, sorted by path: all, or those of a split, of a label, or of both; at most `limit`."""
        rows = self._db.execute(
            f"SELECT {_SAMPLE} FROM file WHERE used AND split = ifnull(?, split) AND label = ifnull(?, label) "
            "ORDER BY path LIMIT ?",
            (split, label, _sql_limit(limit)),
        )
        return (_sample(*row) for row in rows)

    def samples_by_number(self, numbers: Iterable[int]) -> dict[int, Sample]:
        """The samples with these numbers."""
        wanted = sorted(set(numbers))
        found: dict[int, Sample] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            rows = self._db.execute(f"SELECT id, {_SAMPLE} FROM file WHERE id IN ({_marks(some)})", some)
            found.update((i, _sample(*row)) for i, *row in rows)
        return found

    def count_used(self) -> int:
        """The number of files in use."""
        return self._count("file WHERE used")

    def classes(self) -> list[str]:
        """The labels of all labelled samples, sorted."""
        rows = self._db.execute("SELECT DISTINCT label FROM file WHERE used AND split != ?", (UNLABELLED,))
        return sorted(label for (label,) in rows)

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples by split and class: `{"train": {"cat": 12, "dog": 9}, ...}`. Empty splits are left out."""
        rows = self._db.execute("SELECT split, label, count(*) FROM file WHERE used GROUP BY split, label")
        counted = {(split, label): count for split, label, count in rows}
        splits = [x for x in SPLITS if any(split == x for split, _ in counted)]
        return {split: {label: counted.get((split, label), 0) for label in self.classes()} for split in splits}

    # The ledger

    def ledger(self, verdict: str | None = None, *, limit: int | None = None) -> Iterator[LedgerLine]:
        """The lines of all files, or of those with this verdict, in the order in which the files were found."""
        rows = self._db.execute(
            "SELECT path, verdict, reason FROM file WHERE verdict = ifnull(?, verdict) ORDER BY id LIMIT ?",
            (verdict, _sql_limit(limit)),
        )
        return (LedgerLine(os.fsdecode(path), verdict, reason) for path, verdict, reason in rows)

    def count_verdicts(self) -> dict[str, int]:
        """The number of files with each verdict, zeros included."""
        counted = dict(self._db.execute("SELECT verdict, count(*) FROM file GROUP BY verdict"))
        return {verdict: counted.get(verdict, 0) for verdict in VERDICTS}

    def reject(self, reasons: Mapping[str, str]) -> None:
        """Stop using these samples. `reasons` are by path."""
        self._db.executemany(
            "UPDATE file SET used = FALSE, verdict = 'rejected', reason = ? WHERE used AND path = ?",
            ((reason, os.fsencode(path)) for path, reason in reasons.items()),
        )

    def flag(self, remarks: Mapping[str, str]) -> None:
        """Mark these samples as doubtful. `remarks` are by path."""
        self._db.executemany(
            "UPDATE file SET verdict = 'flagged', reason = ? || iif(reason = '', '', '; ' || reason) "
            "WHERE used AND path = ?",
            ((remark, os.fsencode(path)) for path, remark in remarks.items()),
        )

    # Copies

    def used_copies(self) -> list[tuple[int, int]]:
        """Pairs (first, copy) of the numbers of samples with equal pixels: each copy with the first of its kind."""
        return self._db.execute(
            "SELECT first, id FROM (SELECT id, min(id) OVER (PARTITION BY sha256) AS first FROM file WHERE used) "
            "WHERE first != id ORDER BY id"
        ).fetchall()

    def distinct_images(self) -> Iterator[int]:
        """The numbers of all samples that are no copy of an earlier one, ascending."""
        rows = self._db.execute("SELECT min(id) AS first FROM file WHERE used GROUP BY sha256 ORDER BY first")
        return (number for (number,) in rows)

    # Groups and splits

    def rename_groups(self, names: Mapping[str, str]) -> None:
        """Rename groups, old name to new. Groups that get the same name are merged."""
        if names:
            self._db.execute('CREATE INDEX IF NOT EXISTS file_by_group ON file ("group")')
            self._db.executemany(
                'UPDATE file SET "group" = ? WHERE "group" = ?', ((new, old) for old, new in names.items())
            )

    def given_splits(self) -> set[str]:
        """The splits that occur; "" stands for samples without one."""
        return {split for (split,) in self._db.execute("SELECT DISTINCT split FROM file WHERE used")}

    def given_groups(self) -> frozenset[str]:
        """The groups that the source names; all others are named after an image's pixels."""
        rows = self._db.execute("""SELECT DISTINCT "group" FROM file WHERE used AND "group" != sha256""")
        return frozenset(group for (group,) in rows)

    def groups_across_splits(self) -> dict[str, dict[str, int]]:
        """The groups, named by the source, that it puts into several splits: samples by split."""
        rows = self._db.execute(
            f"""SELECT "group", split, count(*) FROM file WHERE used AND split IN ({_marks(SPLITS)}) AND "group" IN
            (SELECT "group" FROM file WHERE used AND "group" != sha256 AND split IN ({_marks(SPLITS)})
            GROUP BY "group" HAVING count(DISTINCT split) > 1) GROUP BY "group", split ORDER BY "group", split""",
            SPLITS + SPLITS,
        )
        found: dict[str, dict[str, int]] = {}
        for group, split, count in rows:
            found.setdefault(group, {})[split] = count
        return found

    def move_whole_groups(self, splits: Mapping[str, str]) -> None:
        """Put all labelled samples of these groups into one split. `splits` are by group."""
        self._db.executemany(
            'UPDATE file SET split = ? WHERE used AND "group" = ? AND split != ?',
            ((split, group, UNLABELLED) for group, split in splits.items()),
        )

    def follow_given(self) -> None:
        """Give the samples without a split that of their group: test rather than valid, valid rather than train."""
        for split in reversed(SPLITS):
            self._db.execute(
                """UPDATE file SET split = ? WHERE used AND split = '' AND "group" IN
                (SELECT "group" FROM file WHERE used AND split = ?)""",
                (split, split),
            )

    def held_out_groups(self) -> frozenset[str]:
        """The groups of training samples that have samples in valid or test too."""
        rows = self._db.execute(
            """SELECT DISTINCT "group" FROM file WHERE used AND split = 'train' AND "group" IN
            (SELECT "group" FROM file WHERE used AND split IN ('valid', 'test'))"""
        )
        return frozenset(group for (group,) in rows)

    def to_split(self) -> tuple[Counter[str], Counter[str]]:
        """Images, and groups, by label, of the samples in train or without a split."""
        rows = self._db.execute(
            """SELECT label, count(*), count(DISTINCT "group") FROM file WHERE used AND split IN ('', 'train')
            GROUP BY label"""
        ).fetchall()
        return Counter({x: images for x, images, _ in rows}), Counter({x: groups for x, _, groups in rows})

    def group_sizes(self, groups: Iterable[str], splits: Sequence[str] = ("", "train")) -> dict[str, Counter[str]]:
        """Samples of these groups in these splits, by group and label."""
        rows = self._db.execute(
            f"""SELECT "group", label, count(*) FROM file WHERE used AND split IN ({_marks(splits)}) AND "group" IN
            (SELECT value FROM json_each(?)) GROUP BY "group", label""",
            (*splits, json.dumps(sorted(groups))),
        )
        sizes: dict[str, Counter[str]] = {}
        for group, label, count in rows:
            sizes.setdefault(group, Counter())[label] = count
        return sizes

    def assign_splits(self, split_for: Callable[[str], str]) -> None:
        """Give every sample in train or without a split the split that `split_for` returns for its group."""
        self._db.create_function("split_for", 1, split_for)
        self._db.execute("""UPDATE file SET split = split_for("group") WHERE used AND split IN ('', 'train')""")

    def move_groups(self, moves: Iterable[tuple[str, str, str]]) -> None:
        """Move the samples of groups from one split to another. `moves` are (group, from, to)."""
        self._db.executemany(
            'UPDATE file SET split = ? WHERE used AND "group" = ? AND split = ?', ((to, g, old) for g, old, to in moves)
        )

    def count_groups(self, splits: Sequence[str]) -> Counter[tuple[str, str]]:
        """The number of groups by (label, split), in these splits."""
        rows = self._db.execute(
            f"""SELECT label, split, count(DISTINCT "group") FROM file
            WHERE used AND split IN ({_marks(splits)}) GROUP BY label, split""",
            splits,
        )
        return Counter({(label, split): count for label, split, count in rows})

    def count_images(self, splits: Sequence[str]) -> Counter[tuple[str, str]]:
        """The number of samples by (label, split), in these splits."""
        rows = self._db.execute(
            f"SELECT label, split, count(*) FROM file WHERE used AND split IN ({_marks(splits)}) GROUP BY label, split",
            splits,
        )
        return Counter({(label, split): count for label, split, count in rows})

    def groups_of_labels(self, labels: Iterable[str], splits: Sequence[str]) -> dict[str, frozenset[str]]:
        """The groups that contain one of `labels`, each with all labels that it has in `splits`."""
        rows = self._db.execute(
            f"""SELECT "group", label FROM file WHERE used AND split IN ({_marks(splits)}) AND "group" IN
            (SELECT "group" FROM file WHERE used AND label IN (SELECT value FROM json_each(?)))""",
            (*splits, json.dumps(sorted(labels))),
        )
        groups: dict[str, frozenset[str]] = {}
        for group, label in rows:
            groups[group] = groups.get(group, frozenset()) | {label}
        return groups

    def training_groups(self) -> Iterator[tuple[str, str]]:
        """(label, group) of every training sample."""
        return iter(self._db.execute("""SELECT label, "group" FROM file WHERE used AND split = 'train'"""))

    def keep_training_groups(self, is_kept: Callable[[str], bool]) -> None:
        """Stop using the training samples of all groups for which `is_kept` is false."""
        self._db.create_function("is_kept", 1, is_kept)
        self._db.execute("""UPDATE file SET used = FALSE WHERE used AND split = 'train' AND NOT is_kept("group")""")

    def _count(self, of: str) -> int:
        [count] = self._db.execute(f"SELECT count(*) FROM {of}").fetchone()
        return int(count)


def _sample(path: bytes, *rest: object) -> Sample:
    return Sample(os.fsdecode(path), *rest)  # type: ignore[arg-type]


def _marks(values: Sequence[object]) -> str:
    """As many SQL placeholders as there are values."""
    return ", ".join("?" * len(values))


def _sql_limit(limit: int | None) -> int:
    return -1 if limit is None else limit
