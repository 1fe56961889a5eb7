"""The one score of a run that is shown first, and which cycles its model is made of, read from its folders."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import read_json

TRAINING = ("full_train", "head_train_augmented", "head_train")
"""Training stages, the last one first: the last one that ran gives a run its numbers."""


@dataclass(frozen=True)
class Score:
    """How many images of a split are classified correctly, in the mode that did better on valid."""

    split: str
    mode: str
    num_images: int
    accuracy: float
    low: float
    high: float
    """The 95 % interval."""

    def __str__(self) -> str:
        """`93.4 % of 76 test images correct (85 to 97)`."""
        return f"{percent(self.accuracy)} of {self.num_images} {self.split} images correct ({span(self)})"


def read_score(folders: Mapping[str, Path]) -> Score | None:
    """Read the score on test images, or on valid where there are none; None before `tta_evaluate`."""
    if "tta_evaluate" not in folders:
        return None
    metrics = read_json(folders["tta_evaluate"] / "metrics.json")
    split, mode = shown_split(metrics), chosen_mode(metrics)
    scores = metrics[split][mode]
    low, high = scores["accuracy_low"], scores["accuracy_high"]
    return Score(split, mode, metrics[split]["num_images"], scores["accuracy"], low, high)


def chosen_mode(metrics: Mapping[str, Any]) -> str:
    """`plain` or `tta`, as chosen on valid; folders that were made before there was a choice have tables of TTA."""
    mode: str = metrics.get("chosen", "tta")
    return mode


def shown_split(metrics: Mapping[str, Any]) -> str:
    """The split that counts: test, or valid where there are no test images."""
    return "test" if "test" in metrics else "valid"


def percent(share: float) -> str:
    """A share in percent; 100 % only if it is exactly that."""
    return f"{min(100 * share, 99.9) if share < 1 else 100:.1f} %"


def span(score: Score) -> str:
    """The interval in whole percent, or in tenths where it is narrower than ten points."""
    digits = 0 if score.high - score.low > 0.1 else 1
    return f"{100 * score.low:.{digits}f} to {100 * score.high:.{digits}f}"


def kept_cycles(cycles: Mapping[str, Any]) -> str:
    """Name the kept cycles shortly, from `cycles.json`: `2 of 3`, `1+3 of 3`, `before` for the state before training.

    Of a solved head, its weight decays.
    """
    kept, last, decays = cycles["kept"]["cycles"], cycles["ends"][-1]["cycle"], cycles.get("weight_decays")
    if kept == [0]:
        return "before"
    if decays is None:
        return f"{'+'.join(map(str, kept))} of {last}"
    return f"decay {'+'.join(f'{decays[cycle - 1]:.2g}' if cycle else 'before' for cycle in kept)}"
