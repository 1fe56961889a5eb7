"""The pictures of a training stage: planned rates, learning curves, and sharpness."""

from collections.abc import Sequence
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
    Array,
    draw_line,
    figure,
    legend_above,
    panels_below,
    thinned,
)
from pipeline.report.text import counted, drawable

Curve = tuple[npt.ArrayLike, npt.ArrayLike]
CycleValues = tuple[Sequence[int], Sequence[float]]
"""Steps and values, of equal length; values may hold NaN."""


def plot_schedule(
    path: Path,
    *,
    lrs: npt.ArrayLike,
    group_names: Sequence[str],
    cycle_starts: Sequence[int],
    steps_per_epoch: float,
) -> None:
    """Draw the planned rate of each layer group, `lrs` [num_steps, num_groups]; `cycle_starts` are steps."""
    rates = np.asarray(lrs, dtype=np.float64)
    epochs = np.arange(len(rates)) / steps_per_epoch
    peaks = np.nanmax(rates, axis=0, initial=0.0)
    span = f"{counted(len(cycle_starts), 'cycle')}, {counted(round(len(rates) / steps_per_epoch, 1), 'epoch')}"
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
    period: str = "cycle",
) -> None:
    """Draw the losses, and below them the validation accuracy.

    Args:
        path: The PNG to write.
        train: Loss of each mini-batch.
        train_plain: Loss on training images without augmentation.
        valid: Loss on validation images.
        valid_accuracy: Accuracy on validation images, 0..1.
        cycle_ends: The step at which each cycle ends.
        kept_steps: The cycle ends (0: before training) that the kept model is made of; they are circled.
        kept_scores: Validation loss and accuracy of the kept model.
        overfit_step: The end of the cycle in which over-fitting began; it and all later cycles are shaded.
        steps_per_epoch: Steps are drawn as epochs.
        period: What a cycle is called.
    """
    train_xy, valid_xy, acc_xy = (_in_epochs(c, steps_per_epoch) for c in (train, valid, valid_accuracy))
    smooth = _moving_average(train_xy[1])
    title = _curves_title(cycle_ends, kept_steps, kept_scores, overfit_step, period)
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
        _mark_cycles(top, starts, end=end, period=period)
        _mark_cycles(below, starts, end=end, named=False)
        legend_above(top)


def plot_sharpness(path: Path, *, gap: CycleValues, rise: CycleValues, hessian_top: CycleValues) -> None:
    """Draw the generalisation gap (validation loss minus training loss) and the sharpness over the cycles.

    Each is (cycles, values); cycle 0 is the state before training. `rise` is the mean increase of the loss when the
    weights are perturbed. Sharpness may be measured at few of the cycles' ends, and `hessian_top` at none.
    """
    wider, last = ("widened" if gap[1][-1] > gap[1][0] else "narrowed"), gap[1][-1]
    sharpness = (hessian_top if len(hessian_top[1]) else rise)[1]
    sharper = "sharper" if sharpness[-1] > sharpness[0] else "flatter"
    title = f"The generalisation gap {wider} to {last:.3g}; the minimum is {sharper} than before training"
    drawn = [
        (gap, RED, "valid loss - train loss"),
        (rise, ORANGE, "rise of the loss\nunder perturbation"),
        (hessian_top, BLUE, "leading eigenvalue\nof the Hessian"),
    ]
    drawn = [row for row in drawn if len(row[0][1])]
    with figure(path, title=title, height_in=2.0 * len(drawn)) as fig:
        panels = fig.subplots(len(drawn), 1, sharex=True)
        for ax, ((cycles, values), color, label) in zip(panels, drawn, strict=True):
            draw_line(ax, np.asarray(cycles), np.asarray(values), color=color, marker="o")
            ax.set_ylabel(label, fontsize=9)
        panels[-1].set_xlabel("cycle (0: before training)")
        panels[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True))


def plot_weight_decays(
    path: Path,
    *,
    decays: Sequence[float],
    train: Sequence[float],
    valid: Sequence[float],
    before: float,
    kept: Sequence[int],
    kept_loss: float,
) -> None:
    """Draw the losses of the best head for each weight decay, strongest first.

    `before` is the validation loss of the head before training; `kept` are the indices of the decays that the kept head
    is made of, none if it is the one before; `kept_loss` is its validation loss.
    """
    names = " + ".join(f"{decays[i]:.2g}" for i in kept)
    which = f"Weight decay {names} is kept" if kept else "The head before training is kept"
    title = f"{which}: validation loss {kept_loss:.3g}, before {before:.3g}"
    x = np.asarray(decays, dtype=np.float64)
    with figure(path, title=title, height_in=4.2) as fig:
        ax = fig.subplots()
        losses = [np.asarray(values, dtype=np.float64) for values in (train, valid)]
        draw_line(ax, x, losses[0], color=GREEN, marker="s", ls="--", label="training, not augmented")
        draw_line(ax, x, losses[1], color=BLUE, marker="o", label="validation")
        ax.plot(x[list(kept)], losses[1][list(kept)], "o", ms=13, mfc="none", mec=RED, mew=2, label="kept")
        _loss_axis(ax, losses)
        ax.set(xscale="log", xlabel="weight decay, from strong to weak (log scale)")
        ax.xaxis.set_inverted(True)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        legend_above(ax)


def _mark_cycles(ax: Axes, starts: Sequence[float], *, end: float, named: bool = True, period: str = "cycle") -> None:
    """Draw a line where each cycle but the first starts, in epochs, and name the cycles."""
    edges = [*starts, end]
    for edge in edges[1:-1]:
        ax.axvline(edge, color=GREY, lw=1, ls=":", zorder=1)
    ax.set_xlim(edges[0] - 0.01 * max(end, 1e-9), 1.02 * max(end, 1e-9))
    for i in thinned(len(starts), 12) if named else ():
        name = f"{period} {i + 1}" if len(starts) <= 6 else str(i + 1)
        ax.text(
            (edges[i] + edges[i + 1]) / 2, 0.99, name, transform=ax.get_xaxis_transform(),
            ha="center", va="top", fontsize=9, color=GREY,
        )  # fmt: skip


def _in_epochs(curve: Curve, steps_per_epoch: float) -> tuple[Array, Array]:
    steps, values = (np.asarray(a, dtype=np.float64) for a in curve)
    return steps / steps_per_epoch, values


def _moving_average(values: Array) -> Array:
    """Average over a centred window of a fortieth of the curve, at most 50 steps, ignoring NaN."""
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
    """Fit y to the smooth curves, with a log scale where the end of the curves would look flat."""
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
    """Fit y to all points except a first one far below them: that of an untrained head would flatten the rest."""
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
    """Shade the cycle that ends at `step`, and all later ones."""
    if step is None:
        return
    start = max((end for end in cycle_ends if end < step), default=0)
    ax.axvspan(start / steps_per_epoch, 1e9, color=RED, alpha=0.10, lw=0, zorder=0.5)


def _curves_title(
    cycle_ends: Sequence[int],
    kept_steps: Sequence[int],
    kept_scores: tuple[float, float] | None,
    overfit_step: int | None,
    period: str = "cycle",
) -> str:
    kept = [[0, *cycle_ends].index(step) for step in kept_steps]
    if kept == [0]:
        title = f"No {period} of {len(cycle_ends)} was better: the state before training is kept"
    elif len(kept) == 1:
        title = f"{period.capitalize()} {kept[0]} of {len(cycle_ends)} is kept"
    elif kept:
        before = " (0: before training)" if 0 in kept else ""
        title = f"The mean of {period}s {' + '.join(map(str, kept))} of {len(cycle_ends)}{before} is kept"
    else:
        title = counted(len(cycle_ends), period) + " of training"
    if kept_scores is not None:
        title += f": validation loss {kept_scores[0]:.3g}, accuracy {kept_scores[1]:.1%}"
    return title + ("; shaded: over-fitting" if overfit_step is not None else "")
