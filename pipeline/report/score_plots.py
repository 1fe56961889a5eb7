"""The pictures of a model's scores: confusion matrix and calibration."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.report.style import BLUE, GREY, INK, SKY, Array, figure, legend_above, panels_below, thinned
from pipeline.report.text import class_labels


def plot_confusion(path: Path, *, confusion: npt.ArrayLike, classes: Sequence[str]) -> None:
    """Draw counts [C, C]: a row per true class, a column per predicted class, shaded by the share of the row."""
    counts = np.asarray(confusion)
    num = len(classes)
    if counts.shape != (num, num):
        raise ValueError(f"a confusion matrix of shape {counts.shape} does not fit {num} classes")
    labels = class_labels(classes)
    height = float(np.clip(2.4 + 0.5 * num, 4.0, 9.0))
    with figure(path, title=_confusion_title(counts, labels), height_in=height) as fig:
        ax = fig.subplots()
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(_two_hues(share), interpolation="nearest", aspect="equal")
        _label_classes(ax, labels)
        if num <= 20:
            _write_counts(ax, counts, share)
            ax.set_xticks(np.arange(num + 1) - 0.5, minor=True)
            ax.set_yticks(np.arange(num + 1) - 0.5, minor=True)
            ax.grid(which="minor", color="white", lw=1.5)
        ax.grid(which="major", visible=False)
        ax.tick_params(which="both", length=0)
        ax.set(xlabel="predicted", ylabel="true")
        note = "Blue: correct. Orange: wrong. A stronger shade is a larger share of the true class."
        fig.supxlabel(note, fontsize=10, color=GREY, x=0.01, ha="left")


def plot_calibration(
    path: Path,
    *,
    edges: npt.ArrayLike,
    count: npt.ArrayLike,
    correct: npt.ArrayLike,
    confidence: npt.ArrayLike,
    accuracy: npt.ArrayLike,
    accuracy_low: npt.ArrayLike,
    accuracy_high: npt.ArrayLike,
) -> None:
    """Draw the accuracy of predictions against their confidence, both 0..1, in bins of confidence.

    `edges` [B + 1] are the bins' bounds; all others are [B]. `count` and `correct` are numbers of images. `confidence`
    and `accuracy` are means, NaN in an empty bin; `accuracy_low` and `accuracy_high` are the 95 % interval.
    """
    counts, bounds = np.asarray(count, dtype=np.int64), np.asarray(edges, dtype=np.float64)
    filled = np.flatnonzero(counts)
    weights = counts[filled]
    sure, hits, low, high = (
        np.asarray(x, dtype=np.float64)[filled] for x in (confidence, accuracy, accuracy_low, accuracy_high)
    )
    error = np.average(np.abs(sure - hits), weights=weights)
    share = np.asarray(correct).sum() / counts.sum()
    title = (
        f"On average {np.average(sure, weights=weights):.1%} confident and {share:.1%} correct: "
        f"calibration error (ECE) {error:.1%}"
    )
    with figure(path, title=title, height_in=6.0) as fig:
        top, below = panels_below(fig, [3, 1])
        errors = 100 * np.abs(np.array([low, high]) - hits)
        top.plot([0, 100], [0, 100], color=GREY, ls="--", lw=1.5, label="perfectly calibrated")
        top.errorbar(
            100 * sure, 100 * hits, yerr=errors, color=BLUE, marker="o", lw=1.5, capsize=3,
            label="measured, 95% interval",
        )  # fmt: skip
        top.set(ylabel="correct, %", ylim=(-3, 103), xlim=(0, 100))
        centres = 50 * (bounds[:-1] + bounds[1:])
        bars = below.bar(centres, counts, width=100 / len(centres) * 0.9, color=SKY)
        below.bar_label(bars, labels=[f"{c:,}" if c else "" for c in counts], padding=2, fontsize=9)
        below.set(xlabel="confidence of the prediction, %", ylabel="images", ylim=(0, 1.25 * counts.max()))
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        below.xaxis.set_major_locator(MaxNLocator(10))
        legend_above(top)


def _two_hues(share: Array) -> Array:
    """Colour shares [C, C] blue on the diagonal and orange off it, as RGB [C, C, 3].

    The power makes small shares visible: one mistake in a hundred can be seen.
    """
    depth = share**0.4
    correct, wrong = mpl.colormaps["Blues"](0.85 * depth), mpl.colormaps["Oranges"](0.85 * depth)
    hue = np.where(np.eye(len(share), dtype=bool)[:, :, None], correct, wrong)[:, :, :3]
    return np.where((share > 0)[:, :, None], hue, 0.965)


def _write_counts(ax: Axes, counts: Array, share: Array) -> None:
    size = 10 if len(counts) <= 12 else 8
    for row, col in zip(*np.nonzero(counts), strict=True):
        color = "white" if share[row, col] > 0.3 else INK
        ax.text(col, row, f"{counts[row, col]:,}", ha="center", va="center", fontsize=size, color=color)


def _label_classes(ax: Axes, labels: Sequence[str]) -> None:
    shown = thinned(len(labels), 60) if len(labels) > 60 else list(range(len(labels)))
    size = 10 if len(labels) <= 20 else 8 if len(labels) <= 40 else 6.5
    names = [labels[i] for i in shown]
    upright = len(labels) > 6 and max(map(len, names)) > 2
    ax.set_xticks(shown, names, rotation=90 if upright else 0, fontsize=size)
    ax.set_yticks(shown, names, fontsize=size)


def _confusion_title(counts: Array, labels: Sequence[str]) -> str:
    title = f"{np.trace(counts):,} of {counts.sum():,} correct"
    mistakes = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    if mistakes.max(initial=0) < 2:  # single mistakes show no pattern
        return title
    row, col = np.unravel_index(int(mistakes.argmax()), mistakes.shape)
    return f"{title}; most often mistaken: {labels[int(row)]} for {labels[int(col)]} ({mistakes[row, col]:,})"
