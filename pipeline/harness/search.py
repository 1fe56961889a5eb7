"""A search over settings with Optuna: trial k is job k of a sweep, and what was found so far proposes the next.

Optuna proposes (TPE); the launcher of the sweep runs. Trials run in batches. A proposal follows from the seed, its
number, and the trials of earlier batches, and whether a trial is pruned from those that are complete by then: so a
search that was killed at any time, and is started again with the same command, ends in the same trials. Only the
search's own process writes the study: a job writes what it found into its folder, whatever machine it runs on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline.console import say
from pipeline.files import atomic_file, read_json, write_csv, write_json
from pipeline.harness.job_record import DONE, FAILED, PRUNED
from pipeline.harness.pruning import REPORTS, TRIAL
from pipeline.harness.sweep import STUDY, Sweep
from pipeline.settings import SettingsError

_STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_DIGITS = 4
"""Significant digits of a proposed number, so that tables and commands can be read."""


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included."""

    low: float
    high: float
    is_integer: bool = False
    is_log: bool = False
    """Whether each order of magnitude is equally likely at first."""


Space = Mapping[str, Range | Sequence[str]]
"""What each setting may become: a number, or one of several values as they are typed."""


@dataclass(frozen=True)
class Search:
    """What to search in, and how far."""

    sweep: Sweep
    space: Space
    fixed: Sequence[str]
    """Overrides of every job."""
    n_trials: int
    max_batch_size: int
    """Trials that are proposed together, and run side by side where the launcher does that."""
    seed: int
    n_startup_trials: int
    """Random trials before the first proposal, and complete ones before the first is pruned."""
    pruner: Literal["median", "none"]

    def run(self) -> None:
        """Run what is left of the search, and write `trials.csv`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(study_name="search", storage=open_storage(self.sweep.folder), load_if_exists=True)
        for first in range(0, self.n_trials, self.max_batch_size):
            self._run_batch(study, range(first, min(first + self.max_batch_size, self.n_trials)))
        trials = study.get_trials(deepcopy=False)
        write_csv(self.sweep.folder / "trials.csv", trial_rows(trials, [*self.space]))
        counts = {state: sum(t.state == state for t in trials) for state in TrialState}
        say(
            self.sweep.name,
            f"{counts[TrialState.COMPLETE]} of {len(trials)} trials are complete, {counts[TrialState.PRUNED]} pruned, "
            f"{counts[TrialState.FAIL]} failed: {self.sweep.folder}/trials.csv",
        )

    def _run_batch(self, study: optuna.Study, numbers: range) -> None:
        jobs: dict[int, list[str]] = {}
        earlier = study.get_trials(deepcopy=False)[: numbers.start]
        for number in numbers:
            known = study.get_trials(deepcopy=False)
            if number == len(known):
                study.add_trial(self._propose(study, number))
                known = study.get_trials(deepcopy=False)
            if known[number].state.is_finished():
                continue
            if (same := _same_as(known[number], earlier)) is not None:  # training is deterministic
                study._storage.set_trial_user_attr(known[number]._trial_id, "same_as", same.number)
                study.tell(number, same.value)
                continue
            self._describe(number, earlier)
            jobs[number] = [*self.fixed, *(f"{key}={_typed(value)}" for key, value in known[number].params.items())]
        if jobs:
            self.sweep.run(jobs)
        for number in jobs:
            self._tell(study, number)

    def _propose(self, study: optuna.Study, number: int) -> FrozenTrial:
        """Choose the settings of a trial. It is written to the study in one go, so that a kill cannot part it."""
        seed, is_batch = self.seed * 100_003 + number, self.max_batch_size > 1
        sampler = TPESampler(seed=seed, n_startup_trials=self.n_startup_trials, constant_liar=is_batch)
        distributions = {key: _distribution(part) for key, part in self.space.items()}
        blank = create_trial(state=TrialState.RUNNING, params={}, distributions={})
        blank.number = number
        params = {
            key: _rounded(sampler.sample_independent(study, blank, key, distribution), distribution)
            for key, distribution in distributions.items()
        }
        return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)

    def _describe(self, number: int, earlier: Sequence[FrozenTrial]) -> None:
        """Write for a job what it is compared with at the ends of its cycles."""
        folder = self.sweep.folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        complete = [t.intermediate_values for t in earlier if t.state == TrialState.COMPLETE]
        others = [[[epoch, loss] for epoch, loss in values.items()] for values in complete]
        told = {"pruner": self.pruner, "n_startup_trials": self.n_startup_trials, "others": others}
        write_json(folder / TRIAL, told)

    def _tell(self, study: optuna.Study, number: int) -> None:
        """Tell the study what a job has left in its folder. One that was killed each time has failed."""
        record, storage = self.sweep.job(number) or {}, study._storage
        trial = study.get_trials(deepcopy=False)[number]
        reports = self.sweep.folder / str(number) / REPORTS
        for epoch, loss in read_json(reports) if reports.exists() else []:
            storage.set_trial_intermediate_value(trial._trial_id, epoch, loss)
        state = {DONE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}.get(record.get("status", ""), TrialState.FAIL)
        objective = record.get("objective")
        if state == TrialState.COMPLETE and objective is None:
            raise SettingsError(f"{self.sweep.program} has no objective, so there is nothing to search for")
        if state == TrialState.FAIL:
            error = record.get("error") if record.get("status") == FAILED else "was killed"
            storage.set_trial_user_attr(trial._trial_id, "error", error)
        study.tell(number, objective["value"] if state == TrialState.COMPLETE and objective else None, state=state)


def trial_rows(trials: Sequence[FrozenTrial], settings: Sequence[str]) -> list[list[Any]]:
    """Return all trials as a table, the best first, then those pruned, then those failed."""
    order = [*_STATES]
    ranked = sorted(trials, key=lambda t: (order.index(t.state), math.inf if t.value is None else t.value, t.number))
    header = ["trial", *settings, "state", "objective", "epochs", "same_as", "error"]
    rows = [
        [
            t.number, *(t.params.get(key, "") for key in settings), _STATES[t.state],
            "" if t.value is None else t.value, "" if t.last_step is None else t.last_step,
            t.user_attrs.get("same_as", ""), t.user_attrs.get("error", ""),
        ]
        for t in ranked
    ]  # fmt: skip
    return [header, *rows]


def open_storage(folder: Path) -> JournalStorage:
    """Open the study below a sweep's folder, which this process has locked.

    What a kill left goes: a line that is half written, and Optuna's lock, for which it would wait 30 s.
    """
    file = folder / STUDY
    file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
    content = file.read_bytes() if file.exists() else b""
    if (whole := content.rpartition(b"\n")[0] + b"\n" * (b"\n" in content)) != content:
        with atomic_file(file) as draft:
            draft.write(whole)
    return JournalStorage(JournalFileBackend(str(file)))


def _distribution(part: Range | Sequence[str]) -> BaseDistribution:
    if not isinstance(part, Range):
        return CategoricalDistribution(list(part))
    if part.is_integer:
        return IntDistribution(round(part.low), round(part.high), log=part.is_log)
    return FloatDistribution(part.low, part.high, log=part.is_log)


def _rounded(value: Any, distribution: BaseDistribution) -> Any:
    if not isinstance(distribution, FloatDistribution):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), distribution.low), distribution.high)


def _same_as(trial: FrozenTrial, earlier: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial of an earlier batch that had the same settings."""
    return next((t for t in earlier if t.state == TrialState.COMPLETE and t.params == trial.params), None)


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
