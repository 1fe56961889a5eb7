"""The pictures of data and training: pure functions that write one PNG each, the same bytes for the same input.

Every picture is legible at 900 px, its colours can be told apart by the colour-blind (Okabe and Ito), and its
title says what is seen. Nothing here touches pyplot or the reader's own matplotlib settings.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline.report.style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SKY,
    Array,
    draw_line,
    figure,
    legend_above,
    panels_below,
    thinned,
)
from pipeline.report.text import class_labels, drawable

Curve = tuple[npt.ArrayLike, npt.ArrayLike]
"""x and y of equal length, y may hold NaN."""


def plot_lr_find(
    path: Path,
    *,
    curves: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]],
    chosen: float,
    others: Mapping[str, float | None],
    falls: bool,
) -> None:
    """Draw the sweeps of the learning-rate finder, the chosen rate, and the other rules' answers (or None).

    `curves` holds (rates, losses, smoothed losses) of each repeat; `falls` says whether their mean ever clearly falls.
    """
    sweeps = [_finite_sweep(*curve) for curve in curves]
    rates, mean = _mean_curve([(lrs, smoothed) for lrs, _, smoothed in sweeps])
    with figure(path, title=_lr_title(chosen, rates, mean, falls), height_in=5.0 + 0.28 * len(others)) as fig:
        top, strip = panels_below(fig, [4.4, max(0.28 * len(others), 0.01)])
        for i, (lrs, losses, smoothed) in enumerate(sweeps):
            named = i == 0
            draw_line(
                top,
                lrs,
                losses,
                color=GREY,
                lw=0.6,
                alpha=0.35,
                label="each mini-batch" if named else None,
            )
            several = len(sweeps) > 1
            style = {"color": SKY, "lw": 1.2, "alpha": 0.9} if several else {"color": BLUE}
            label = f"smoothed, {len(sweeps)} repeats" if several else "smoothed"
            draw_line(top, lrs, smoothed, label=label if named else None, **style)
        if len(sweeps) > 1:
            draw_line(top, rates, mean, color=BLUE, lw=2.5, label="their mean")
        top.set(ylabel="training loss, less the luck of the batch", xscale="log", ylim=_sweep_ylim(mean, falls))
        for ax in (top, strip):
            ax.axvline(chosen, color=RED, lw=2, ls="--", zorder=1.5)
        top.plot([], [], color=RED, ls="--", label=f"chosen: {chosen:.2g}")
        shown = [chosen, *rates.tolist(), *(v for v in others.values() if v)]
        lo, hi = min(shown), max(shown)
        strip.set_xlim(lo / 1.5, hi * 1.5)
        _rate_strip(strip, others, chosen)
        strip.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        strip.xaxis.set_minor_formatter(NullFormatter())
        strip.set_xlabel("learning rate (log scale)")
        legend_above(top)


def plot_schedule(
    path: Path,
    *,
    lrs: npt.ArrayLike,
    group_names: Sequence[str],
    cycle_starts: Sequence[int],
    steps_per_epoch: float,
) -> None:
    """Draw the rate of each layer group, `lrs` [num_steps, num_groups], over the epochs."""
    rates = np.asarray(lrs, dtype=np.float64)
    epochs = np.arange(len(rates)) / steps_per_epoch
    peaks = np.nanmax(rates, axis=0, initial=0.0)
    span = f"{_count(len(cycle_starts), 'cycle')}, {_count(round(len(rates) / steps_per_epoch, 1), 'epoch')}"
    ends = f"{drawable(group_names[-1])} peaks at {peaks[-1]:.2g}"
    if len(group_names) > 1:
        ends += f", {drawable(group_names[0])} at {peaks[0]:.2g}"
    with figure(path, title=f"The learning rate over {span}: {ends}", height_in=4.2) as fig:
        ax = fig.subplots()
        for i in reversed(range(len(group_names))):
            label = f"{drawable(group_names[i])} (peak {peaks[i]:.2g})"
            draw_line(ax, epochs, rates[:, i], color=CYCLE[(len(group_names) - 1 - i) % len(CYCLE)], label=label)
        _mark_cycles(ax, [s / steps_per_epoch for s in cycle_starts], end=len(rates) / steps_per_epoch)
        ax.set(xlabel="epoch", ylabel="learning rate", ylim=(0, 1.1 * max(peaks.max(initial=0.0), 1e-12)))
        legend_above(ax)


def plot_learning_curves(
    path: Path,
    *,
    train: Curve,
    train_plain: Curve | None,
    valid: Curve,
    valid_accuracy: Curve,
    cycle_ends: Sequence[int],
    kept_steps: Sequence[int],
    kept_scores: tuple[float, float] | None,
    overfit_step: int | None,
    steps_per_epoch: float,
) -> None:
    """Draw losses, and the accuracy (0..1) below them; x values are steps.

    `train` is the loss of each mini-batch, `train_plain` that of training images without augmentation. The steps kept
    (0: before training) are circled, and `kept_scores` are validation loss and accuracy of what they make together; the
    cycle that ends at `overfit_step` and what follows is shaded.
    """
    train_xy, valid_xy, acc_xy = (_in_epochs(c, steps_per_epoch) for c in (train, valid, valid_accuracy))
    smooth = _moving_average(train_xy[1])
    title = _curves_title(cycle_ends, kept_steps, kept_scores, overfit_step)
    with figure(path, title=title, height_in=6.6) as fig:
        top, below = panels_below(fig, [3, 2])
        draw_line(top, *train_xy, color=GREY, lw=0.6, alpha=0.35, label="training, per batch")
        draw_line(top, train_xy[0], smooth, color=ORANGE, label="smoothed")
        compared = [smooth, valid_xy[1]]
        if train_plain is not None:
            plain = _in_epochs(train_plain, steps_per_epoch)
            compared.append(plain[1])
            draw_line(top, *plain, color=GREEN, marker="s", ls="--", label="not augmented")
        draw_line(top, *valid_xy, color=BLUE, marker="o", label="validation")
        _loss_axis(top, compared)
        draw_line(below, acc_xy[0], 100 * acc_xy[1], color=BLUE, marker="o")
        below.set(ylabel="validation accuracy, %", xlabel="epoch", ylim=_accuracy_ylim(100 * acc_xy[1]))
        below.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
        for ax, curve, scale in ((top, valid, 1.0), (below, valid_accuracy, 100.0)):
            for i, step in enumerate(kept_steps):
                _mark_kept(ax, curve, step, steps_per_epoch, scale, label=None if i else "kept")
            _mark_overfitting(ax, overfit_step, cycle_ends, steps_per_epoch)
        ends = [s / steps_per_epoch for s in cycle_ends]
        end = max([*ends, *train_xy[0]], default=0.0)  # a cycle may be under way
        starts = [0.0, *(e for e in ends if e < end)]
        _mark_cycles(top, starts, end=end)
        _mark_cycles(below, starts, end=end, named=False)
        legend_above(top)


def plot_sharpness(
    path: Path, *, cycles: Sequence[int], gap: Sequence[float], rise: Sequence[float], hessian_top: Sequence[float]
) -> None:
    """Draw, per cycle (0: before training), how much better seen images are known than unseen, and how sharp it is."""
    wider = "widened" if gap[-1] > gap[0] else "narrowed"
    sharper = "sharper" if hessian_top[-1] > hessian_top[0] else "flatter"
    title = f"The generalisation gap {wider} to {gap[-1]:.3g}; the loss is {sharper} there than at first"
    with figure(path, title=title, height_in=6.0) as fig:
        panels = fig.subplots(3, 1, sharex=True)
        rows = (
            (gap, RED, "valid - train loss"),
            (rise, ORANGE, "rise of the loss\nunder perturbation"),
            (hessian_top, BLUE, "leading eigenvalue\nof the Hessian"),
        )
        for ax, (values, color, label) in zip(panels, rows, strict=True):
            draw_line(ax, np.asarray(cycles), np.asarray(values), color=color, marker="o")
            ax.set_ylabel(label, fontsize=9)
        panels[-1].set_xlabel("cycle (0: before training)")
        panels[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True))


def plot_class_counts(path: Path, *, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Draw the number of images of each class, one panel per split, classes in order of first mention."""
    classes = list(dict.fromkeys(c for split in counts.values() for c in split))
    labels = class_labels(classes)
    rows = [[split.get(c, 0) for c in classes] for split in counts.values()]
    table = np.array(rows, dtype=np.int64).reshape(len(counts), len(classes))
    height = float(np.clip(1.9 + 0.27 * len(classes), 2.6, 9.0))
    with figure(path, title=_counts_title(list(counts), table, labels), height_in=height) as fig:
        panels = fig.subplots(1, max(len(counts), 1), sharey=True, squeeze=False)[0]
        for i, (ax, name, row) in enumerate(zip(panels, counts, table, strict=False)):
            bars = ax.barh(
                np.arange(len(classes)),
                row,
                height=0.8 if len(classes) <= 60 else 1.0,
                color=CYCLE[i % len(CYCLE)],
            )
            ax.set(
                title=f"{drawable(name)}: {row.sum():,}",
                xlabel="images",
                xlim=(0, 1.25 * max(row.max(initial=0), 1)),
            )
            ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            ax.grid(axis="y", visible=False)
            if len(classes) <= 40:
                ax.bar_label(bars, labels=[f"{n:,}" for n in row], padding=3, fontsize=9)
        shown = thinned(len(labels), 40)
        panels[0].set_yticks(shown, [labels[i] for i in shown], fontsize=10 if len(classes) <= 25 else 9)
        panels[0].set_ylim(max(len(classes), 1) - 0.5, -0.5)


# Parts of more than one plot


def _mark_cycles(ax: Axes, starts: Sequence[float], *, end: float, named: bool = True) -> None:
    edges = [*starts, end]
    for edge in edges[1:-1]:
        ax.axvline(edge, color=GREY, lw=1, ls=":", zorder=1)
    ax.set_xlim(edges[0] - 0.01 * max(end, 1e-9), 1.02 * max(end, 1e-9))
    for i in thinned(len(starts), 12) if named else ():
        name = f"cycle {i + 1}" if len(starts) <= 6 else str(i + 1)
        ax.text(
            (edges[i] + edges[i + 1]) / 2, 0.99, name, transform=ax.get_xaxis_transform(),
            ha="center", va="top", fontsize=9, color=GREY,
        )  # fmt: skip


def _count(n: float, noun: str) -> str:
    return f"{n:,g} {noun}" + ("" if n == 1 else "s")


# The learning-rate finder


def _finite_sweep(lrs: npt.ArrayLike, losses: npt.ArrayLike, smoothed: npt.ArrayLike) -> tuple[Array, Array, Array]:
    x, raw, smooth = (np.asarray(a, dtype=np.float64) for a in (lrs, losses, smoothed))
    ok = np.isfinite(x) & (x > 0)
    return x[ok], raw[ok], smooth[ok]


def _mean_curve(curves: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the mean of the curves over the rates that all of them reached, on the grid of the first."""
    curves = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in curves]
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return np.zeros(0), np.zeros(0)
    lo, hi = max(x.min() for x, _ in curves), min(x.max() for x, _ in curves)
    grid = curves[0][0]
    grid = grid[(grid >= lo) & (grid <= hi)]
    return grid, np.mean([np.interp(np.log(grid), np.log(x), y) for x, y in curves], axis=0)


def _sweep_ylim(mean: Array, falls: bool) -> tuple[float | None, float | None]:
    """Choose y limits from the curve up to its minimum, so that divergence does not flatten it.

    Of a curve that never falls the rise is shown, until it has doubled.
    """
    if not len(mean):
        return None, None
    low = float(mean.min())
    high = float(mean[: int(mean.argmin()) + 1].max()) if falls else low + abs(low)
    span = max(high - low, 0.1 * abs(high), 1e-6)
    return low - 0.15 * span, high + 0.35 * span


def _lr_title(chosen: float, rates: Array, mean: Array, falls: bool) -> str:
    if not len(rates):
        return f"Learning rate {chosen:.2g}; no loss was finite"
    if not falls:
        return f"Learning rate {chosen:.2g} was chosen; the loss clearly falls at no rate"
    factor = float(rates[mean.argmin()]) / chosen
    if factor > 1.05:
        times = f"{factor:,.0f}" if factor >= 10 else f"{factor:.2g}"
        return f"Learning rate {chosen:.2g} was chosen, {times} times below that of the lowest loss"
    place = "above" if factor < 0.95 else "at"
    return f"Learning rate {chosen:.2g} was chosen, {place} that of the lowest loss"


def _rate_strip(ax: Axes, others: Mapping[str, float | None], chosen: float) -> None:
    """Give each rule a row of its own, so that equal answers do not hide each other."""
    start, end = ax.get_xlim()
    for row, value in enumerate(others.values()):
        if value is None:
            _beside(ax, "no answer", (start, row), side=1, color=GREY)
        else:
            ax.plot([value], [row], ls="", marker="|", ms=11, mew=2.5, color=INK, zorder=3)
            _beside(
                ax,
                f"{value:.2g}",
                (value, row),
                side=-1 if 4 * start < value < chosen or value > 0.3 * end else 1,
                color=INK,
            )
    ax.set_yticks(range(len(others)), [drawable(name) for name in others], fontsize=10)
    ax.set_ylim(len(others) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _beside(ax: Axes, text: str, xy: tuple[float, float], *, side: int, color: str) -> None:
    box = {"fc": "white", "ec": "none", "pad": 0.5}
    ax.annotate(
        text, xy, xytext=(8 * side, 0), textcoords="offset points", ha="left" if side > 0 else "right",
        va="center", fontsize=9, color=color, bbox=box,
    )  # fmt: skip


# Learning curves


def _in_epochs(curve: Curve, steps_per_epoch: float) -> tuple[Array, Array]:
    steps, values = (np.asarray(a, dtype=np.float64) for a in curve)
    return steps / steps_per_epoch, values


def _moving_average(values: Array) -> Array:
    """Average over a centred window of a fortieth of the curve, at most 50 steps, leaving out NaN."""
    if not len(values):
        return values
    window = int(np.clip(len(values) // 40, 1, 50))
    ok = np.isfinite(values)
    kernel = np.ones(window)
    total = np.convolve(np.where(ok, values, 0), kernel, mode="same")[: len(values)]
    weight = np.convolve(ok, kernel, mode="same")[: len(values)]
    average: Array = np.divide(total, weight, out=np.full(len(values), np.nan), where=ok & (weight > 0))
    return average


def _loss_axis(ax: Axes, curves: Sequence[Array]) -> None:
    """Fit y to the smooth curves; take a log scale where the end of the fall would look flat."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    ax.set_ylabel("loss")
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > 20 * low:
        ax.set(yscale="log", ylim=(low / 1.6, high * 1.6), ylabel="loss (log scale)")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        span = max(high - low, 0.05 * abs(high), 1e-6)
        ax.set_ylim(low - 0.15 * span, high + 0.15 * span)


def _accuracy_ylim(percent: Array) -> tuple[float, float] | None:
    """Fit y to all points, but for a first one far below them: an untrained head's would flatten the rest."""
    values = percent[np.isfinite(percent)]
    if not len(values):
        return None
    rest = values[1:] if len(values) > 2 else values
    span = max(float(rest.max() - rest.min()), 1.0)
    low, high = float(rest.min()), float(values.max())
    if values[0] > low - 3 * span:
        low = min(low, float(values[0]))
    span = max(high - low, 1.0)
    return low - 0.35 * span, high + 0.15 * span


def _value_at(curve: Curve, step: int) -> float | None:
    steps, values = np.asarray(curve[0]), np.asarray(curve[1], dtype=np.float64)
    found = np.flatnonzero(steps == step)
    return float(values[found[-1]]) if len(found) else None


def _mark_kept(ax: Axes, curve: Curve, step: int, steps_per_epoch: float, scale: float, *, label: str | None) -> None:
    value = _value_at(curve, step)
    if value is None or not np.isfinite(value):
        return
    x, y = [step / steps_per_epoch], [scale * value]
    ax.plot(x, y, ls="", marker="o", ms=13, mfc="none", mec=INK, mew=2, zorder=4, label=label)


def _mark_overfitting(ax: Axes, step: int | None, cycle_ends: Sequence[int], steps_per_epoch: float) -> None:
    """Shade the cycle that ended at `step` with a higher loss, and all after it."""
    if step is None:
        return
    start = max((end for end in cycle_ends if end < step), default=0)
    ax.axvspan(start / steps_per_epoch, 1e9, color=RED, alpha=0.10, lw=0, zorder=0.5)


def _curves_title(
    cycle_ends: Sequence[int],
    kept_steps: Sequence[int],
    kept_scores: tuple[float, float] | None,
    overfit_step: int | None,
) -> str:
    kept = [[0, *cycle_ends].index(step) for step in kept_steps]
    if kept == [0]:
        title = f"No cycle of {len(cycle_ends)} was better: the state before training is kept"
    elif len(kept) == 1:
        title = f"Cycle {kept[0]} of {len(cycle_ends)} is kept"
    elif kept:
        before = " (0: before training)" if 0 in kept else ""
        title = f"The mean of cycles {' + '.join(map(str, kept))} of {len(cycle_ends)}{before} is kept"
    else:
        title = _count(len(cycle_ends), "cycle") + " of training"
    if kept_scores is not None:
        title += f": validation loss {kept_scores[0]:.3g}, accuracy {kept_scores[1]:.1%}"
    return title + ("; shaded: over-fitting" if overfit_step is not None else "")


# Confusion matrix and class counts


def _counts_title(splits: Sequence[str], table: Array, labels: Sequence[str]) -> str:
    title = f"{_count(int(table.sum()), 'image')} of {_count(len(labels), 'class').replace('classs', 'classes')}"
    if len(labels) < 2:
        return title
    row = table[0]
    low, high = int(row.argmin()), int(row.argmax())
    if row[low] == 0:
        return f"{title}; {labels[low]} has none in {drawable(splits[0])}"
    return f"{title}; the largest has {row[high] / row[low]:.1f} times the smallest in {drawable(splits[0])}"
