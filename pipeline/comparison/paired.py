"""What runs answer image by image, and what paired tests say of the difference.

A pair of scores hardly tells two runs apart; their answers for the same images do, because most are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.comparison.runs import Run
from pipeline.data.manifest import read_manifest
from pipeline.evaluation.bootstrap import paired_interval
from pipeline.evaluation.metrics import mcnemar_exact
from pipeline.report.reading import read_rows

LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class Answer:
    """What a run answers for one image."""

    label: str
    predicted: str
    loss: float
    """Cross entropy of the label in nats."""
    confidence: float | None = None
    """Probability of the predicted class, where it is known."""

    @property
    def is_correct(self) -> bool:
        return self.label == self.predicted


Answers = dict[str, Answer]
"""By path of the image."""


@dataclass(frozen=True)
class Change:
    """How the second of two runs differs from the first on the images that both have answered."""

    num_images: int
    accuracy: float
    """Difference of the shares of correct answers."""
    accuracy_p: float
    """McNemar's exact test of whether both are equally often right."""
    only_first: int
    """Images that the first alone answers correctly."""
    only_second: int
    loss: float
    """Difference of the mean losses; below 0 the second is better."""
    loss_low: float
    loss_high: float

    @property
    def is_clear(self) -> bool:
        """Whether the losses differ by more than chance."""
        return self.loss_low > 0 or self.loss_high < 0


def valid_answers(run: Run) -> Answers:
    """The answers of the kept model for the images of valid; empty for a run that was made before they were kept."""
    if run.trained is None or not (file := run.stages[run.trained] / "valid.csv").exists():
        return {}
    rows = [*read_rows(file)]
    names: Sequence[str]
    if run.ingest is None:
        names, classes = [str(i) for i in range(len(rows))], None
    else:
        manifest = read_manifest(run.ingest)
        names, classes = manifest.of("valid").paths, manifest.classes
    return {
        name: Answer(_class(row["target"], classes), _class(row["predicted"], classes), float(row["loss"]))
        for name, row in zip(names, rows, strict=True)
    }


def answers_of(run: Run, split: str) -> Answers:
    """The answers of the evaluated model for the images of a split, in the mode that was chosen; empty if unknown."""
    file = run.stages["tta_evaluate"] / "answers.csv" if "tta_evaluate" in run.stages else None
    if file is None or not file.exists():
        return {}
    return {
        row["path"]: Answer(row["label"], row["predicted"], float(row["loss"]), float(row["p"]))
        for row in read_rows(file)
        if row["split"] == split
    }


def compare_answers(first: Answers, second: Answers, *, num_tests: int = 1) -> Change | None:
    """Compare two runs on the images that both have with the same label; None if there are none.

    With `num_tests` the interval is widened so that all of them together are wrong in one of twenty cases (Bonferroni).
    """
    names = [n for n in first if n in second and first[n].label == second[n].label]
    if not names:
        return None
    a, b = [first[n] for n in names], [second[n] for n in names]
    correct_a, correct_b = (np.array([answer.is_correct for answer in side]) for side in (a, b))
    losses = np.array([y.loss - x.loss for x, y in zip(a, b, strict=True)])
    low, high = paired_interval(losses, seed=SEED, level=1 - (1 - LEVEL) / num_tests)
    return Change(
        num_images=len(names),
        accuracy=float(correct_b.mean() - correct_a.mean()),
        accuracy_p=mcnemar_exact(correct_a, correct_b),
        only_first=int((correct_a & ~correct_b).sum()),
        only_second=int((correct_b & ~correct_a).sum()),
        loss=float(losses.mean()),
        loss_low=low,
        loss_high=high,
    )


def _class(number: str, classes: tuple[str, ...] | None) -> str:
    return number if classes is None else classes[int(number)]
