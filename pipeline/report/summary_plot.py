"""The picture of several runs: accuracies with their intervals as bars, a heat map over two settings, or parallel
coordinates over more."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pipeline.report.style import BLUE, GREY, INK, SKY, figure
from pipeline.report.text import drawable

SHOWN = 30
"""Bars; of more runs the best are shown."""


@dataclass(frozen=True)
class Bar:
    """One run, with its accuracy in 0..1."""

    label: str
    accuracy: float
    low: float
    high: float
    is_unclear: bool
    """Whether a paired test cannot tell it from the best."""


@dataclass(frozen=True)
class Line:
    """One run, with the settings in which it differs from the others."""

    values: Sequence[object]
    objective: float
    """The lower the better."""
    is_unclear: bool
    """Whether a paired test cannot tell it from the best."""


def plot_parallel(path: Path, *, lines: Sequence[Line], settings: Sequence[str], objective: str, title: str) -> None:
    """Draw each run, the best first, as a line through its values of the `settings`, an axis each, to its objective."""
    axes = [_Axis([line.values[i] for line in lines]) for i in range(len(settings))]
    axes.append(_Axis([line.objective for line in lines]))
    with figure(path, title=title, height_in=5.6) as fig:
        ax = fig.subplots()
        for rank, line in reversed([*enumerate(lines)]):
            color = BLUE if rank == 0 else SKY if line.is_unclear else "#C9CED6"
            values = [*line.values, line.objective]
            places = [axis.place(value) for axis, value in zip(axes, values, strict=True)]
            ax.plot(range(len(axes)), places, color=color, lw=3 if rank == 0 else 1.6, marker="o", ms=4)
        for at, axis in enumerate(axes):
            ax.axvline(at, color=GREY, lw=0.8, zorder=0)
            for place, text in axis.ticks():
                ax.text(at + 0.03, place, drawable(text, 18), fontsize=9, va="center", color=INK)
        ax.set_xticks(range(len(axes)), [drawable(name, 24) for name in (*settings, objective)])
        ax.set_xlim(-0.1, len(axes) - 0.6)
        ax.set_ylim(-0.06, 1.06)
        ax.set_yticks([])
        ax.grid(visible=False)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        note = "Dark: the best. Light: no clear difference to it on valid. Grey: clearly worse."
        fig.supxlabel(note, fontsize=9, color=GREY, x=0.01, ha="left")


class _Axis:
    """Where the values of a setting are on their axis, from 0 to 1: numbers to scale, others evenly."""

    def __init__(self, values: Sequence[object]) -> None:
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        self._is_number = len(numbers) == len(values)
        if self._is_number:
            positive = min(numbers) > 0 and max(numbers) / min(numbers) > 10
            self._scale = np.log10 if positive else np.asarray
            self._low, self._high = (float(self._scale(n)) for n in (min(numbers), max(numbers)))
        self._values: list[Any] = sorted(set(numbers)) if self._is_number else sorted({str(v) for v in values})

    def place(self, value: object) -> float:
        """Return where a value is."""
        if not self._is_number:
            return 0.5 if len(self._values) == 1 else self._values.index(str(value)) / (len(self._values) - 1)
        span = self._high - self._low
        return 0.5 if span == 0 else (float(self._scale(float(value))) - self._low) / span  # type: ignore[arg-type]

    def ticks(self) -> list[tuple[float, str]]:
        """Return the places that are labelled, with their labels: every value where there are few, else the ends."""
        shown = self._values if len(self._values) <= 6 else [self._values[0], self._values[-1]]
        return [(self.place(value), value if isinstance(value, str) else f"{value:.4g}") for value in shown]


def plot_bars(path: Path, *, bars: Sequence[Bar], accuracy: str, title: str) -> None:
    """Draw the runs below each other in the given order, the best first."""
    shown = bars[:SHOWN]
    y = np.arange(len(shown))
    with figure(path, title=title, height_in=1.6 + 0.42 * max(len(shown), 2)) as fig:
        ax = fig.subplots()
        for at, bar in zip(y, shown, strict=True):
            color = BLUE if at == 0 else SKY if bar.is_unclear else "#C9CED6"
            ax.barh(at, 100 * bar.accuracy, height=0.68, color=color)
            errors = [[100 * (bar.accuracy - bar.low)], [100 * (bar.high - bar.accuracy)]]
            ax.errorbar(100 * bar.accuracy, at, xerr=errors, color=INK, lw=1.2, capsize=3)
        low = min((bar.low for bar in shown), default=0.0)
        ax.set_xlim(max(0.0, 100 * low - 8), 101)
        ax.set_yticks(y, [drawable(bar.label, 48) for bar in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlabel(f"{accuracy}, %, with its 95% interval")
        ax.grid(axis="y", visible=False)
        note = "Dark: the lowest loss on valid. Light: no clear difference to it there. Grey: clearly worse."
        fig.supxlabel(note, fontsize=9, color=GREY, x=0.01, ha="left")


def plot_grid(
    path: Path,
    *,
    values: Sequence[Sequence[float]],
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    best: tuple[int, int],
    accuracy: str,
    title: str,
) -> None:
    """Draw accuracies [R, C] in 0..1 over two settings; `rows` and `columns` are a setting's name and its values."""
    shares = 100 * np.asarray(values, dtype=np.float64)
    (row_name, row_values), (column_name, column_values) = rows, columns
    with figure(path, title=title, height_in=2.2 + 0.7 * len(row_values)) as fig:
        ax = fig.subplots()
        palest = shares.max() - 1.3 * max(np.ptp(shares), 0.1)
        image = ax.imshow(shares, cmap="Blues", aspect="auto", vmin=palest, vmax=shares.max())
        _write_values(ax, shares, best, dark=(shares - palest) / (shares.max() - palest) > 0.6)
        ax.set_xticks(range(len(column_values)), [drawable(v) for v in column_values])
        ax.set_yticks(range(len(row_values)), [drawable(v) for v in row_values])
        ax.set(xlabel=drawable(column_name, 40), ylabel=drawable(row_name, 40))
        ax.grid(visible=False)
        ax.tick_params(length=0)
        fig.colorbar(image, ax=ax, label=f"{accuracy}, %")
        note = "Framed: the lowest loss on valid."
        fig.supxlabel(note, fontsize=9, color=GREY, x=0.01, ha="left")


def _write_values(ax: Axes, shares: NDArray[np.float64], best: tuple[int, int], *, dark: NDArray[np.bool_]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if dark[row, column] else INK
        ax.text(column, row, f"{share:.1f}", ha="center", va="center", color=color)
    row, column = best
    ax.plot(
        np.array([-0.46, 0.46, 0.46, -0.46, -0.46]) + column,
        np.array([-0.44, -0.44, 0.44, 0.44, -0.44]) + row,
        color="#D55E00",
        lw=2.5,
    )
