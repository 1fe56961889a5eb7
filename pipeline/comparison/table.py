"""Several runs in one table: what differs between them, how each did, and which of them is clearly worse than the best.

The best has the lowest loss on valid, or the lowest objective of its sweep: test images choose nothing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.comparison.paired import Answers, Change, compare_answers, valid_answers
from pipeline.comparison.runs import Run
from pipeline.evaluation.metrics import wilson_interval
from pipeline.report.scores import TRAINING, Score, kept_cycles, read_score

IGNORED = ("runtime.",)
"""How a run is executed, which changes no result."""


@dataclass(frozen=True)
class Row:
    """One run in the table."""

    run: Run
    differing: dict[str, Any]
    """The settings that are not the same in all runs, flat."""
    epochs: int
    kept: str
    valid_loss: float
    score: Score
    """On test images where the run evaluated some, otherwise on valid."""
    seconds: float | None
    """Taken by the stages that all runs made."""
    objective: float
    """What the runs are ranked by."""
    against_best: Change | None
    """None for the best run, and where the images are not the same."""

    @property
    def verdict(self) -> str:
        """What a paired test on valid says, beside the best run."""
        if self.against_best is None:
            return "?"
        if not self.against_best.is_clear:
            return "no clear difference"
        return "worse" if self.against_best.loss > 0 else "lower loss"


@dataclass(frozen=True)
class Summary:
    """All runs, the best first."""

    rows: list[Row]
    num_valid: int | None
    """Images that the paired tests were made on."""
    ranked_by: str | None = None
    """The objective, `<stage>/<metric>`, where that is not the loss of the trained model on valid."""

    @property
    def differing(self) -> list[str]:
        return list(self.rows[0].differing) if self.rows else []

    @property
    def score_name(self) -> str:
        """What the accuracies are of: `test accuracy`, or `accuracy` where they are of different splits."""
        splits = {row.score.split for row in self.rows}
        return f"{splits.pop()} accuracy" if len(splits) == 1 else "accuracy"

    @property
    def nothing_helped(self) -> bool:
        """Whether every run kept the state before training."""
        return all(row.kept == "before" for row in self.rows)

    @property
    def undecided(self) -> list[Row]:
        """The runs that a paired test cannot tell from the best."""
        return [row for row in self.rows[1:] if row.verdict == "no clear difference"]


def summarise(runs: Sequence[Run]) -> Summary:
    """Compare runs that trained something; the others are left out."""
    trained = [run for run in runs if run.trained is not None]
    if not trained:
        return Summary([], None)
    trained = with_choices(trained)
    keys = differing_settings([run.settings for run in trained])
    ranked_by = _shared_objective(trained)
    ranked = sorted(trained, key=_valid_loss if ranked_by is None else _objective)
    answers = [valid_answers(run) for run in ranked]
    stages = [name for name in ranked[0].stages if all(name in run.stages for run in ranked)]
    rows = [
        _row(run, keys, stages, None if i == 0 else _against(ranked[0], answers[0], run, answers[i], len(ranked) - 1))
        for i, run in enumerate(ranked)
    ]
    return Summary(rows, len(answers[0]) or None, ranked_by)


def _shared_objective(runs: Sequence[Run]) -> str | None:
    """What all of these runs minimised, where it is of a stage that trains no model that is kept."""
    names = {None if run.objective is None else run.objective[0] for run in runs}
    name = names.pop() if len(names) == 1 else None
    return None if name is None or name.startswith((*TRAINING, "tta_evaluate")) else name


def _objective(run: Run) -> float:
    assert run.objective is not None
    return run.objective[1] if math.isfinite(run.objective[1]) else math.inf


def with_choices(runs: Sequence[Run]) -> list[Run]:
    """Put one setting, `augment: side_on`, in place of those of a group that every run chose by name.

    They stay where two runs made the same choice and yet differ in them.
    """
    for group in set.intersection(*(set(run.choices) for run in runs)):
        parts = {(run.choices[group], tuple(_part(run, group).items())) for run in runs}
        if len(parts) == len({choice for choice, _ in parts}):
            runs = [replace(run, settings=_without(run, group) | {group: run.choices[group]}) for run in runs]
    return [*runs]


def _part(run: Run, group: str) -> dict[str, Any]:
    return {key: repr(value) for key, value in run.settings.items() if key.startswith(f"{group}.")}


def _without(run: Run, group: str) -> dict[str, Any]:
    return {key: value for key, value in run.settings.items() if not key.startswith(f"{group}.")}


def differing_settings(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all of these flat settings."""
    keys = dict.fromkeys(key for values in settings for key in values)
    missing = object()
    return [
        key
        for key in keys
        if not key.startswith(IGNORED) and any(values.get(key, missing) != settings[0].get(key) for values in settings)
    ]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key its last part, or the whole key where two would look the same."""
    last = {key: key.rpartition(".")[2] for key in keys}
    seen = Counter(last.values())
    return {key: name if seen[name] == 1 else key for key, name in last.items()}


def _row(run: Run, keys: Sequence[str], stages: Sequence[str], change: Change | None) -> Row:
    assert run.trained is not None
    metrics, cycles = run.json(run.trained), run.json(run.trained, "cycles.json")
    return Row(
        run=run,
        differing={key: run.settings.get(key) for key in keys},
        epochs=metrics["epochs"],
        kept=kept_cycles(cycles),
        valid_loss=metrics["valid_loss"],
        score=read_score(run.stages) or _valid_score(run),
        seconds=run.seconds(stages),
        objective=_valid_loss(run) if run.objective is None else _objective(run),
        against_best=change,
    )


def _valid_score(run: Run) -> Score:
    assert run.trained is not None
    accuracy, count = run.json(run.trained)["valid_accuracy"], len(valid_answers(run))
    low, high = wilson_interval(round(accuracy * count), count)
    return Score("valid", "plain", count, accuracy, low, high)


def _valid_loss(run: Run) -> float:
    loss: float = run.json(run.trained or "")["valid_loss"]
    return loss if math.isfinite(loss) else math.inf


def _against(best: Run, best_answers: Answers, run: Run, answers: Answers, num_tests: int) -> Change | None:
    comparable = (best.ingest is not None and run.ingest is not None) or best.images == run.images
    return compare_answers(best_answers, answers, num_tests=num_tests) if comparable else None
