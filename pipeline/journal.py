"""The numbers that a stage reports while it runs, in a file. MLflow is updated from that file.

One JSON object per line: `{"step": 12, "values": {"train_loss": 0.5}}`. The journal is part of the stage's output, so
it holds nothing that differs between two equal runs: no time of day, no path.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import CheckedFile, write_csv
from pipeline.numbers import check_numbers


@dataclass(frozen=True)
class Mark:
    """How far a journal was when something was kept."""

    length: int = 0
    """In bytes."""
    sha256: str = hashlib.sha256().hexdigest()
    """Of the journal up to there."""


class Journal:
    """Appends lines to a file, from its beginning: what a killed run wrote is gone unless `resume` takes it up.

    `on_append` is called after each line, for example to show it live.
    """

    def __init__(self, path: Path, *, on_append: Callable[[], None] | None = None) -> None:
        self.path = path
        self._on_append = on_append
        path.touch()
        self._file = CheckedFile(path, "r+b")
        self._length, self._hash = 0, hashlib.sha256()
        self._is_cut = False

    def points(self, step: int, **values: float) -> None:
        """Record values at `step`, the number of optimizer updates since the stage began.

        Raises NumbersError for NaN and infinity.
        """
        check_numbers(values, of=f"at step {step}")
        line = json.dumps({"step": step, "values": values}).encode() + b"\n"
        if not self._is_cut:
            self._cut()
        self._file.write(line)
        self._length += len(line)
        self._hash.update(line)
        if self._on_append is not None:
            self._on_append()

    def mark(self) -> Mark:
        """Return how far it is, to be kept with what was reached by then."""
        return Mark(self._length, self._hash.hexdigest())

    def resume(self, mark: Mark) -> bool:
        """Go on from `mark`; returns False, and stays as it is, if the file is not what it was up to there."""
        with self.path.open("rb") as file:
            content = file.read(mark.length)
        known = hashlib.sha256(content)
        if len(content) != mark.length or known.hexdigest() != mark.sha256:
            return False
        self._length, self._hash = mark.length, known
        self._cut()
        return True

    def restart(self) -> None:
        """Go back to the beginning."""
        self._length, self._hash = 0, hashlib.sha256()
        self._cut()

    def end(self) -> None:
        """Remove what a killed run wrote after the point that this one has come to."""
        self._cut()

    def close(self) -> None:
        self._file.close()

    def _cut(self) -> None:
        self._file.truncate(self._length)
        self._file.seek(self._length)
        self._is_cut = True


def read_points(journal: Path) -> dict[int, dict[str, float]]:
    """Return the journal's values by step, in the order of steps."""
    rows: dict[int, dict[str, float]] = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        rows.setdefault(entry["step"], {}).update(entry["values"])
    return dict(sorted(rows.items()))


def write_history(journal: Path, history: Path) -> None:
    """Write the journal's points as CSV, with one row per step and one column per name."""
    rows = read_points(journal)
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    write_csv(history, [["step", *names], *([step, *(row.get(n, "") for n in names)] for step, row in rows.items())])
