"""What a stage reports, in a file of its own, before anyone else is told.

One JSON object per line: `{"step": 12, "values": {"train_loss": 0.5}}` or `{"note": "..."}`. The journal is part of the
stage's output, so it holds nothing that differs between two equal runs: no clock, no path.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path


class Journal:
    """Appends lines to a file. `on_append` is called after each line, to show it elsewhere while the stage runs."""

    def __init__(self, path: Path, *, on_append: Callable[[], None] | None = None) -> None:
        self.path = path
        self._on_append = on_append
        self._file = path.open("a", encoding="utf-8")

    def points(self, step: int, **values: float) -> None:
        """Record values at `step` (optimizer updates since the stage began)."""
        self._append({"step": step, "values": values})

    def note(self, text: str) -> None:
        """Record an event in words."""
        self._append({"note": text})

    def tell(self) -> int:
        """Length of the journal in bytes, for a checkpoint to remember."""
        return self._file.tell()

    def rewind(self, length: int) -> None:
        """Forget what was written after the checkpoint that is being resumed."""
        self._file.truncate(length)
        self._file.seek(length)

    def close(self) -> None:
        self._file.close()

    def _append(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._on_append is not None:
            self._on_append()


def read_points(journal: Path) -> dict[int, dict[str, float]]:
    """The journal's values by step, in order of steps."""
    rows: dict[int, dict[str, float]] = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "values" in entry:
            rows.setdefault(entry["step"], {}).update(entry["values"])
    return dict(sorted(rows.items()))


def write_history(journal: Path, history: Path) -> None:
    """Write the journal's points as a table with a row per step and a column per name."""
    rows = read_points(journal)
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    with history.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["step", *names], lineterminator="\n")
        table.writeheader()
        table.writerows({"step": step, **row} for step, row in rows.items())
