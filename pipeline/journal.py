"""The numbers that a stage reports while it runs, in a file. MLflow is updated from that file.

One JSON object per line: `{"step": 12, "values": {"train_loss": 0.5}}`. The journal is part of the stage's output, so
it holds nothing that differs between two equal runs: no time of day, no path.
"""

import json
from collections.abc import Callable
from pathlib import Path

from pipeline.files import write_csv


class Journal:
    """Appends lines to a file. `on_append` is called after each line, for example to show it live."""

    def __init__(self, path: Path, *, on_append: Callable[[], None] | None = None) -> None:
        self.path = path
        self._on_append = on_append
        self._file = path.open("a", encoding="utf-8")

    def points(self, step: int, **values: float) -> None:
        """Record values at `step`, the number of optimizer updates since the stage began."""
        self._file.write(json.dumps({"step": step, "values": values}) + "\n")
        self._file.flush()
        if self._on_append is not None:
            self._on_append()

    def tell(self) -> int:
        """Return the length of the journal in bytes, for a checkpoint."""
        return self._file.tell()

    def rewind(self, length: int) -> None:
        """Remove what was written after the checkpoint, whose `tell()` is `length`."""
        self._file.truncate(length)
        self._file.seek(length)

    def close(self) -> None:
        self._file.close()


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
