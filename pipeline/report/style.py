"""The look that all plots share.

Every picture is legible at 900 px, its colours suit the colour-blind (Okabe and Ito), and its title
says what it shows. The same input gives the same bytes. Neither pyplot nor a user's matplotlib settings are touched.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pipeline.files import atomic_file

Array = npt.NDArray[Any]

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, GREY = "#222222", "#767676"
CYCLE = [BLUE, ORANGE, GREEN, PURPLE, SKY, RED]

_WIDTH_IN = 9.0
_DPI = 150
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.parse_math": False,  # `$` in a class name is a dollar
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.unicode_minus": False,
    "grid.color": "#E4E4E4",
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "savefig.facecolor": "white",
}


@contextmanager
def figure(path: Path, *, title: str, height_in: float = 5.0) -> Iterator[Figure]:
    """Give a figure in the shared style, and write it to `path` as a PNG when the block ends without an error."""
    with matplotlib.style.context(["default", _STYLE]):
        fig = Figure(figsize=(_WIDTH_IN, height_in), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
        FigureCanvasAgg(fig)
        fig.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", wrap=True)
        yield fig
        with atomic_file(path) as file:
            fig.savefig(file, dpi=_DPI, format="png", metadata={"Software": None})


def panels_below(fig: Figure, height_ratios: Sequence[float]) -> list[Axes]:
    """Add panels below each other that share the x axis."""
    axes = fig.subplots(len(height_ratios), 1, sharex=True, gridspec_kw={"height_ratios": list(height_ratios)})
    return list(axes)


def legend_above(ax: Axes) -> None:
    """Put the legend above the axes, where it covers no data."""
    ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=5, columnspacing=1.4, handlelength=1.6)


def draw_line(ax: Axes, x: Array, y: Array, *, label: str | None = None, **style: Any) -> None:
    """Draw a line; a finite point without a finite neighbour is drawn as a dot."""
    ok = np.isfinite(y)
    ax.plot(x, np.where(ok, y, np.nan), label=label or "_nolegend_", **style)
    padded = np.concatenate([[False], ok, [False]])
    alone = ok & ~padded[:-2] & ~padded[2:]
    if "marker" not in style and alone.any():
        ax.plot(x[alone], y[alone], ls="", marker="o", ms=4, color=style["color"], alpha=style.get("alpha"))


def thinned(num: int, at_most: int) -> list[int]:
    """Return at most `at_most` indices of `num` items, evenly spaced from the first."""
    return list(range(0, num, max(1, -(-num // at_most))))
