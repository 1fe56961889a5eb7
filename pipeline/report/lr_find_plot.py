"""The picture of the learning-rate finder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from pipeline.report.style import BLUE, GREY, INK, RED, SKY, Array, draw_line, figure, legend_above, panels_below
from pipeline.report.text import drawable


def plot_lr_find(
    path: Path,
    *,
    curves: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]],
    chosen: float,
    others: Mapping[str, float | None],
    falls: bool,
) -> None:
    """Draw the sweeps of the learning-rate finder, the chosen rate, and the rates of the other rules.

    `curves` holds (rates, losses, smoothed losses) of each repeat; `others` is None for a rule that finds no rate;
    `falls` says whether the mean of the curves clearly falls anywhere.
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
            draw_line(top, rates, mean, color=BLUE, lw=2.5, label="mean")
        top.set(ylabel="training loss, batch noise removed", xscale="log", ylim=_sweep_ylim(mean, falls))
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


def _finite_sweep(lrs: npt.ArrayLike, losses: npt.ArrayLike, smoothed: npt.ArrayLike) -> tuple[Array, Array, Array]:
    x, raw, smooth = (np.asarray(a, dtype=np.float64) for a in (lrs, losses, smoothed))
    ok = np.isfinite(x) & (x > 0)
    return x[ok], raw[ok], smooth[ok]


def _mean_curve(curves: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the mean of the curves over the rates that all of them reach, on the grid of the first."""
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

    For a curve that never falls, the limits show its rise up to twice the lowest loss.
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
    """Give each rule its own row, so that equal rates do not hide each other."""
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
