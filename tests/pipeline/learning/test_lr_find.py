"""The finder: its rules on curves with known answers, and that it leaves no trace."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.bench import Bench
from pipeline.journal import Journal
from pipeline.learning.loop import Learner
from pipeline.learning.lr_find import LrFound, choose, find_lr
from pipeline.learning.lr_rules import RULES, Curve, UnusableCurveError, moving_average, recipe, smooth
from pipeline.settings import LrFind
from tests.pipeline.learning.test_loop import build_model, learner

SETTINGS = LrFind(start_lr=1e-4, end_lr=10.0, num_steps=60, repeats=3, smoothing=0.8, rule="recipe")


def find(made: Learner, scratch: Path) -> tuple[LrFound, list[Curve]]:
    bench = Bench("lr_find_full", 0, scratch, scratch, Journal(scratch / "journal.jsonl"), 1e9)
    found = find_lr(made, SETTINGS, bench, batch_size=8, momentum=0.9)
    bench.journal.close()
    return found


def curve(losses: np.ndarray, low: float = -5, high: float = 1) -> Curve:
    lrs = np.logspace(low, high, len(losses))
    return Curve(lrs, losses, losses)


def s_curve(middle: float, width: float = 0.4) -> Curve:
    """Falls by 1 around 10**middle (steepest there), and rises sharply one decade and a half later."""
    x = np.linspace(-5, 1, 121)
    return curve(2 - 1 / (1 + np.exp(-(x - middle) / width)) + np.exp(6 * (x - middle - 1.8)))


def test_the_moving_average_is_corrected_for_its_start() -> None:
    losses = [3.0, 1.0, 2.0]
    weights = [[1.0], [0.9, 1.0], [0.81, 0.9, 1.0]]
    expected = [np.average(losses[: i + 1], weights=w) for i, w in enumerate(weights)]
    assert moving_average(losses, 0.9) == pytest.approx(expected)


def test_smoothing_does_not_shift_the_curve() -> None:
    steps = np.arange(101)
    dip = 1 - np.exp(-(((steps - 50) / 8) ** 2))
    assert np.argmin(smooth(dip, 0.8)) == 50
    assert np.argmin(moving_average(dip, 0.8)) >= 53  # one pass alone does
    assert smooth(dip, 0.8).min() > dip.min()
    assert smooth(np.ones(5), 0.8) == pytest.approx(np.ones(5))


@pytest.mark.parametrize("middle", [-3.0, -2.0, -1.0])
def test_recipe_lies_past_the_steepest_point_and_before_the_minimum(middle: float) -> None:
    found = np.log10(recipe(s_curve(middle)))
    lowest = s_curve(middle).lrs[np.argmin(s_curve(middle).smoothed)]
    assert middle < found < np.log10(lowest)


def test_recipe_moves_with_the_curve() -> None:
    answers = [np.log10(recipe(s_curve(m))) for m in (-3.0, -2.0, -1.0)]
    assert np.diff(answers) == pytest.approx([1.0, 1.0], abs=0.06)


def test_minimum_and_steep_on_a_parabola() -> None:
    x = np.linspace(-5, 1, 121)
    parabola = curve((x + 2) ** 2)
    assert np.log10(RULES["minimum"](parabola)) == pytest.approx(-3.0)
    assert np.log10(RULES["steep"](parabola)) == pytest.approx(-5.0)


def test_every_rule_answers_within_the_sweep() -> None:
    for name, rule in RULES.items():
        found = rule(s_curve(-2.0))
        assert 1e-6 <= found <= 10, name


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (np.full(60, 2.3), "never fell"),
        (np.linspace(1, 5, 60), "never fell"),
        (np.array([2.0, 9.0]), "diverged within"),
    ],
)
def test_an_unusable_curve_is_refused_with_advice(losses: np.ndarray, said: str) -> None:
    with pytest.raises(UnusableCurveError, match=said):
        recipe(curve(losses))


def test_the_median_of_the_usable_repeats_is_chosen() -> None:
    flat = curve(np.full(60, 1.0))
    found = choose([s_curve(-3.0), s_curve(-2.0), s_curve(-1.0), flat], "recipe")
    assert found.lr == recipe(s_curve(-2.0))
    assert len(found.unusable) == 1
    with pytest.raises(UnusableCurveError, match="2 of 3 sweeps"):
        choose([s_curve(-2.0), flat, flat], "recipe")


def test_finding_leaves_model_and_rng_as_they_were(tmp_path: Path) -> None:
    made = learner(build_model())
    before, rng = copy.deepcopy(made.model.state_dict()), torch.get_rng_state()
    found, curves = find(made, tmp_path)
    assert all(torch.equal(before[n], t) for n, t in made.model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert 1e-4 < found.lr < 10
    assert len(curves) == 3
    assert len({tuple(c.losses) for c in curves}) == 3  # other batch orders, other curves


def test_finished_repeats_survive_a_kill(tmp_path: Path) -> None:
    whole, _ = find(learner(build_model()), tmp_path)
    (tmp_path / "sweep-2.json").unlink()
    stamp = (tmp_path / "sweep-0.json").stat().st_mtime_ns
    again, _ = find(learner(build_model()), tmp_path)
    assert again == whole
    assert (tmp_path / "sweep-0.json").stat().st_mtime_ns == stamp
