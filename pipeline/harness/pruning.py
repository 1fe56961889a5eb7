"""A trial of a search, seen from its job: it ends where it does worse than the median of others at the same epoch.

The others are those that were complete when the trial was proposed, which is in `trial.json` in the job's folder, so
the answer does not depend on what runs beside it, or when. What the trial reports is kept in `reports.json`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pipeline.files import read_json, write_json
from pipeline.harness.job_record import PrunedError
from pipeline.journal import read_points

TRIAL, REPORTS = "trial.json", "reports.json"
Follow = Callable[[str, Path], AbstractContextManager[Callable[[], None]]]


def pruning(folder: Path, follow: Follow, *, stage: str, num_cycles: int) -> Follow:
    """Give what follows a stage as `follow` does and, in a job that is a trial, prunes it at the ends of its cycles.

    `stage` is the one that is judged, by its loss on valid. The end of its last cycle is not: nothing is saved by then.
    """
    if not (folder / TRIAL).exists():
        return follow

    @contextmanager
    def both(name: str, journal: Path) -> Iterator[Callable[[], None]]:
        with follow(name, journal) as wake:
            look = _Ends(folder, journal, num_cycles).look if name == stage else wake

            def wake_both() -> None:
                wake()
                look()

            yield wake_both

    return both


def cycle_ends(journal: Path) -> dict[int, float]:
    """The loss on valid at the end of each cycle in a journal of training, by the number of epochs done."""
    measured = [values for values in read_points(journal).values() if "valid_loss" in values]  # at 0 epochs, 1, ...
    return {epoch: v["valid_loss"] for epoch, v in enumerate(measured) if epoch and "train_plain_loss" in v}


class _Ends:
    """Looks for cycle ends in a journal that grows."""

    def __init__(self, folder: Path, journal: Path, num_cycles: int) -> None:
        self._folder, self._journal, self._num_cycles = folder, journal, num_cycles
        self._trial: dict[str, Any] = read_json(folder / TRIAL)
        self._read = 0

    def look(self) -> None:
        """Report what is new. Raises PrunedError."""
        size = self._journal.stat().st_size
        with self._journal.open("rb") as file:
            file.seek(self._read if size > self._read else 0)  # a run that goes on may have cut it
            is_end = b"train_plain_loss" in file.read()
        self._read = size
        if not is_end:
            return
        ends = cycle_ends(self._journal)
        write_json(self._folder / REPORTS, [[epoch, loss] for epoch, loss in ends.items()])
        if ends and len(ends) < self._num_cycles and self._is_worse(ends):
            best = min(ends.values())
            raise PrunedError(
                f"pruned after {max(ends)} epochs: its best loss on valid, {best:.4f}, is above the median of the "
                "other trials"
            )

    def _is_worse(self, ends: dict[int, float]) -> bool:
        """Whether Optuna's pruner would end the trial here."""
        if self._trial["pruner"] == "none" or len(self._trial["others"]) < self._trial["n_startup_trials"]:
            return False
        import optuna  # half a second, and most trials never come here

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner = optuna.pruners.MedianPruner(self._trial["n_startup_trials"])
        study = optuna.create_study(pruner=pruner)
        for other in self._trial["others"]:
            study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=dict(other)))
        trial = optuna.trial.create_trial(value=0.0, intermediate_values=ends)
        return pruner.prune(study, trial)
