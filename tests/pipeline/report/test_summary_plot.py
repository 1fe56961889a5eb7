"""The picture of several runs can be read, also where they are all alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from pipeline.report import style
from pipeline.report.summary_plot import plot_grid

LUMINANCE = (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("values", [[[1.0, 1.0], [1.0, 1.0]], [[0.97, 0.971], [0.9, 0.98]]])
def test_the_numbers_of_a_heat_map_stand_out_from_their_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[list[float]]
) -> None:
    drawn: list[tuple[float, str]] = []
    scale: dict[str, float] = {}
    text, imshow = Axes.text, Axes.imshow

    def spy_text(self: Axes, x: float, y: float, s: str, **how: Any) -> Any:
        drawn.append((100 * values[int(y)][int(x)], how["color"]))
        return text(self, x, y, s, **how)

    def spy_imshow(self: Axes, shares: Any, **how: Any) -> Any:
        scale.update(low=how["vmin"], high=how["vmax"])
        return imshow(self, shares, **how)

    monkeypatch.setattr(Axes, "text", spy_text)
    monkeypatch.setattr(Axes, "imshow", spy_imshow)
    monkeypatch.setattr(style, "_DPI", 40)
    axes = ("cycle_len", ["1", "2"]), ("cycle_mult", ["1", "2"])
    plot_grid(
        tmp_path / "grid.png", values=values, rows=axes[0], columns=axes[1], best=(0, 0), accuracy="accuracy", title="t"
    )
    assert len(drawn) == 4
    assert scale["high"] - scale["low"] > 0.1, "else matplotlib writes the scale as an offset"
    for value, color in drawn:
        below = colormaps["Blues"]((value - scale["low"]) / (scale["high"] - scale["low"]))[:3]
        assert abs(np.dot(LUMINANCE, below) - np.dot(LUMINANCE, to_rgb(color))) > 0.4
