"""The pictures of a model's scores, drawn like those in `plots.py`; apart, because scores need scipy to load."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.metrics import calibration_bins, wilson_interval
from pipeline.report.style import BLUE, GREY, INK, SKY, Array, figure, legend_above, panels_below, thinned
from pipeline.report.text import class_labels


def plot_confusion(path: Path, *, confusion: npt.ArrayLike, classes: Sequence[str]) -> None:
    """Draw counts [C, C], rows the true class and columns the predicted; shade is the share of the row."""
    counts = np.asarray(confusion)
    num = len(classes)
    if counts.shape != (num, num):
        raise ValueError(f"confusion {counts.shape} does not fit {num} classes")
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
        note = "Blue: right. Orange: mistaken. The darker, the larger the share of the true class."
        fig.supxlabel(note, fontsize=10, color=GREY, x=0.01, ha="left")


def plot_calibration(path: Path, *, confidence: npt.ArrayLike, correct: npt.ArrayLike) -> None:
    """Draw how often predictions are right for how sure they are: `confidence` [N] in 0..1, `correct` [N]."""
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    bins = calibration_bins(sure, right)
    title = f"On average {sure.mean():.1%} sure and {right.mean():.1%} right: calibration error (ECE) {bins.error:.1%}"
    with figure(path, title=title, height_in=6.0) as fig:
        top, below = panels_below(fig, [3, 1])
        filled = np.flatnonzero(bins.count)
        at, acc = 100 * bins.confidence[filled], 100 * bins.accuracy[filled]
        bounds = [wilson_interval(int(bins.correct[b]), int(bins.count[b])) for b in filled]
        errors = np.abs(100 * np.array(bounds).T - acc)
        top.plot([0, 100], [0, 100], color=GREY, ls="--", lw=1.5, label="as right as it is sure")
        top.errorbar(at, acc, yerr=errors, color=BLUE, marker="o", lw=1.5, capsize=3, label="measured, 95% interval")
        top.set(ylabel="right, %", ylim=(-3, 103), xlim=(0, 100))
        centres = 50 * (bins.edges[:-1] + bins.edges[1:])
        bars = below.bar(centres, bins.count, width=100 / len(centres) * 0.9, color=SKY)
        below.bar_label(bars, labels=[f"{c:,}" if c else "" for c in bins.count], padding=2, fontsize=9)
        below.set(xlabel="confidence of the prediction, %", ylabel="images", ylim=(0, 1.25 * bins.count.max()))
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        below.xaxis.set_major_locator(MaxNLocator(10))
        legend_above(top)


def _two_hues(share: Array) -> Array:
    """Colour shares [C, C] blue on the diagonal and orange off it, as RGB [C, C, 3].

    The power lifts small shares: one mistake in a hundred is to be seen.
    """
    depth = share**0.4
    right, wrong = mpl.colormaps["Blues"](0.85 * depth), mpl.colormaps["Oranges"](0.85 * depth)
    hue = np.where(np.eye(len(share), dtype=bool)[:, :, None], right, wrong)[:, :, :3]
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
    title = f"{np.trace(counts):,} of {counts.sum():,} right"
    mistakes = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    if mistakes.max(initial=0) < 2:  # single mistakes have no pattern
        return title
    row, col = np.unravel_index(int(mistakes.argmax()), mistakes.shape)
    return f"{title}; most often mistaken: {labels[int(row)]} for {labels[int(col)]} ({mistakes[row, col]:,})"
