"""The picture of how many images each class has."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report.style import CYCLE, Array, figure, thinned
from pipeline.report.text import class_labels, counted, drawable


def plot_class_counts(path: Path, *, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Draw the number of images of each class, one panel per split; `counts` is {split: {class: images}}."""
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


def _counts_title(splits: Sequence[str], table: Array, labels: Sequence[str]) -> str:
    title = f"{counted(int(table.sum()), 'image')} of {counted(len(labels), 'class', 'classes')}"
    if len(labels) < 2:
        return title
    row = table[0]
    low, high = int(row.argmin()), int(row.argmax())
    if row[low] == 0:
        return f"{title}; {labels[low]} has none in {drawable(splits[0])}"
    return f"{title}; the largest is {row[high] / row[low]:.1f} times the smallest in {drawable(splits[0])}"
