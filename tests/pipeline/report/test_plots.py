"""Every plot draws edge cases without a warning, and writes the same bytes twice."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.metrics import calibration_bins, wilson_interval
from pipeline.report import data_plots, lr_find_plot, score_plots, training_plots

NAN = float("nan")
HOSTILE = [
    "<script>alert(1)</script>",
    "$x_1$",
    "$\\frac{",
    "dog 🐶\nbreak",
    "犬",
    "猫",
    "%s {0}",
    "long " * 30,
]
Draw = Callable[[Path], None]


def _sweep(seed: int, n: int = 60) -> tuple[list[float], list[float], list[float]]:
    lrs = np.geomspace(1e-5, 1, n)
    losses = 2 - np.arange(n) / n + np.random.default_rng(seed).normal(0, 0.1, n)
    return lrs.tolist(), losses.tolist(), losses.tolist()


def _lr_find(*curves: tuple[list[float], list[float], list[float]], **others: float | None) -> Draw:
    return lambda path: lr_find_plot.plot_lr_find(path, curves=curves, chosen=0.01, others=others, falls=True)


def _schedule(num_steps: int, names: list[str], starts: list[int]) -> Draw:
    lrs = np.linspace(1, 0, num_steps)[:, None] * 3.0 ** np.arange(len(names))
    return lambda path: training_plots.plot_schedule(
        path, lrs=lrs, group_names=names, cycle_starts=starts, steps_per_epoch=5
    )


def _learning(losses: list[float], *, kept: int | None = None, overfit: int | None = None) -> Draw:
    steps = list(range(1, len(losses) + 1))
    ends = steps[-1:]
    return lambda path: training_plots.plot_learning_curves(
        path,
        train=(steps, losses),
        train_plain=(ends, losses[-1:]) if ends else None,
        valid=(ends, losses[-1:]),
        valid_accuracy=(ends, [0.5] * len(ends)),
        cycle_ends=ends,
        kept_steps=[] if kept is None else [kept],
        kept_scores=None if kept is None else (0.1, 0.5),
        overfit_step=overfit,
        steps_per_epoch=2,
    )


def _confusion(num_classes: int) -> Draw:
    counts = np.random.default_rng(0).integers(0, 9, (num_classes, num_classes))
    counts[:, -1] = 0  # never predicted
    classes = [f"class {i}" for i in range(num_classes)]
    return lambda path: score_plots.plot_confusion(path, confusion=counts, classes=classes)


def _hostile_confusion(path: Path) -> None:
    score_plots.plot_confusion(path, confusion=np.eye(len(HOSTILE), dtype=int) + 1, classes=HOSTILE)


def _calibration(confidence: list[float], correct: list[bool]) -> Draw:
    bins = calibration_bins(np.array(confidence), np.array(correct))
    low, high = zip(
        *(wilson_interval(int(k), int(n)) for k, n in zip(bins.correct, bins.count, strict=True)), strict=True
    )
    return lambda path: score_plots.plot_calibration(
        path,
        edges=bins.edges,
        count=bins.count,
        correct=bins.correct,
        confidence=bins.confidence,
        accuracy=bins.accuracy,
        accuracy_low=low,
        accuracy_high=high,
    )


def _counts(**counts: dict[str, int]) -> Draw:
    return lambda path: data_plots.plot_class_counts(path, counts=counts)


CASES: dict[str, Draw] = {
    "lr_find": _lr_find(_sweep(0), _sweep(1), _sweep(2), valley=0.003, steep=0.003, minimum=1.0, slide=None),
    "lr_find_one_point": _lr_find(([1e-3], [2.0], [2.0])),
    "lr_find_nan": _lr_find(([1e-4, 1e-3, 1e-2], [2.0, NAN, 1.0], [2.0, NAN, float("inf")]), valley=None),
    "lr_find_nothing_finite": _lr_find(([1e-4, 1e-3], [NAN, NAN], [NAN, NAN])),
    "lr_find_disjoint": _lr_find(([1e-4], [2.0], [2.0]), ([1e-3], [2.0], [2.0])),
    "lr_find_flat": _lr_find((_sweep(0)[0], [0.0] * 60, [0.0] * 60)),
    "schedule": _schedule(35, ["early", "middle", "head"], [0, 5, 15]),
    "schedule_one_step": _schedule(1, ["head"], [0]),
    "schedule_many_cycles": _schedule(200, [f"$g_{i}$" for i in range(9)], list(range(0, 200, 5))),
    "learning": _learning(np.geomspace(3, 0.01, 60).tolist(), kept=60, overfit=40),
    "learning_one_point": _learning([1.0], kept=1),
    "learning_nan": _learning([1.0, NAN, 2.0, NAN], kept=4),
    "learning_nothing": _learning([]),
    **{f"confusion_{n}": _confusion(n) for n in (1, 2, 20, 37, 300)},
    "confusion_hostile": _hostile_confusion,
    "calibration": _calibration([0.2, 0.55, 0.9, 1.0], [False, True, True, True]),
    "calibration_one": _calibration([1.0], [True]),
    "counts": _counts(train={"a": 10, "b": 0}, valid={"a": 1}),
    "counts_hostile": _counts(train=dict.fromkeys(HOSTILE, 3)),
    "counts_300": _counts(train={f"c{i}": i + 1 for i in range(300)}),
    "counts_one": _counts(train={"a": 1}),
    "counts_nothing": _counts(),
}
WRITTEN_TWICE = ["lr_find", "schedule", "learning", "confusion_hostile", "calibration", "counts"]


@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("name", sorted(set(CASES) - set(WRITTEN_TWICE)))
def test_edge_cases_are_drawn_without_a_warning(name: str, tmp_path: Path) -> None:
    CASES[name](tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.verify()


@pytest.mark.slow
@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("name", WRITTEN_TWICE)
def test_two_writes_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    CASES[name](tmp_path / "a.png")
    with mpl.rc_context({"font.size": 30, "text.parse_math": True}):
        CASES[name](tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_plot_has_pixels_for_900_css_px_and_no_metadata(tmp_path: Path) -> None:
    CASES["schedule_one_step"](tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1350
        assert set(image.info) == {"dpi"}


@pytest.mark.usefixtures("few_pixels")
def test_matplotlib_settings_stay_unchanged(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    CASES["schedule"](tmp_path / "a.png")
    assert dict(mpl.rcParams) == before


def test_confusion_must_fit_the_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit 3 classes"):
        score_plots.plot_confusion(tmp_path / "a.png", confusion=np.eye(2), classes=["a", "b", "c"])
    assert not (tmp_path / "a.png").exists()


def test_divergence_does_not_flatten_the_sweep() -> None:
    low, high = lr_find_plot._sweep_ylim(np.array([2.0, 1.0, 0.5, 1e6]), falls=True)
    assert low is not None
    assert high is not None
    assert (0 < low < 0.5, 2.0 < high < 3.0) == (True, True)


def test_a_sweep_that_only_rises_is_shown_while_it_rises() -> None:
    low, high = lr_find_plot._sweep_ylim(np.array([0.04, 0.041, 0.06, 1e6]), falls=False)
    assert low is not None
    assert high is not None
    assert (0.03 < low < 0.04, 0.08 < high < 0.1) == (True, True)


def test_titles_say_what_the_picture_shows() -> None:
    counts = np.array([[5, 2], [1, 4]])
    assert (
        score_plots._confusion_title(counts, ["cat", "dog"]) == "9 of 12 correct; most often mistaken: cat for dog (2)"
    )
    title = training_plots._curves_title([5, 10, 15], [10], (0.25, 0.95), 15)
    assert title == "Cycle 2 of 3 is kept: validation loss 0.25, accuracy 95.0%; shaded: over-fitting"
    title = training_plots._curves_title([5, 10, 15], [15, 5], (0.25, 0.95), None)
    assert title == "The mean of cycles 3 + 1 of 3 is kept: validation loss 0.25, accuracy 95.0%"
    title = training_plots._curves_title([5, 10, 15], [15, 0], (0.25, 0.95), None)
    assert title.startswith("The mean of cycles 3 + 0 of 3 (0: before training) is kept: validation loss")
    title = lr_find_plot._lr_title(0.01, np.array([0.01, 0.1]), np.array([2.0, 1.0]), falls=True)
    assert title.endswith("10 times below that of the lowest loss")
    title = lr_find_plot._lr_title(0.01, np.array([0.01, 3.8]), np.array([2.0, 1.0]), falls=True)
    assert "was chosen, 380 times below" in title
    title = lr_find_plot._lr_title(0.03, np.array([0.01, 0.1]), np.array([1.0, 2.0]), falls=False)
    assert title == "Learning rate 0.03 was chosen; the loss clearly falls at no rate"
    assert (
        data_plots._counts_title(["train"], np.array([[6, 0]]), ["a", "b"])
        == "6 images of 2 classes; b has none in train"
    )


def test_the_moving_average_ignores_nan() -> None:
    values = np.array([1.0, NAN, 3.0] * 40)
    smooth = training_plots._moving_average(values)
    assert np.isnan(smooth[1])
    assert 1 <= np.nanmin(smooth) <= np.nanmax(smooth) <= 3
