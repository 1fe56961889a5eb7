"""The finder: its rules on curves with known answers, and that it changes nothing."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.journal import Journal
from pipeline.kept import read_kept
from pipeline.learning import lr_sweep
from pipeline.learning.loop import Learner
from pipeline.learning.lr_find import LrChoice, choose_lr, find_lr
from pipeline.learning.lr_rules import RULES, Curve, UnusableCurveError, recipe, smooth
from pipeline.learning.soundness import NotFiniteError
from pipeline.learning.sources import TensorBatches
from pipeline.numbers import NumbersError
from pipeline.seeds import permutation
from pipeline.settings import LrFind
from pipeline.workspace import Workspace, say_nothing
from tests.pipeline.learning.test_loop import build_model, learner

SETTINGS = LrFind(
    start_lr=1e-4, end_lr=10.0, num_steps=60, repeats=3, smoothing=0.35, rule="recipe", on_unusable="fallback"
)

SAFE_LR = 0.005


def find(
    made: Learner, scratch: Path, settings: LrFind = SETTINGS, say: Callable[[str], None] = say_nothing
) -> tuple[LrChoice, list[Curve]]:
    workspace = Workspace("lr_find_full", 0, scratch, scratch, Journal(scratch / "journal.jsonl"), 1e9, say)
    try:
        return find_lr(made, settings, workspace, batch_size=8, momentum=0.9, budget=None, safe_lr=SAFE_LR)
    finally:
        workspace.journal.close()


def curve(losses: np.ndarray, low: float = -5, high: float = 1) -> Curve:
    lrs = np.logspace(low, high, len(losses))
    return Curve(lrs, losses, losses)


def s_curve(middle: float, width: float = 0.4) -> Curve:
    """Falls by 1 around 10**middle (steepest there), and rises sharply one decade and a half later."""
    x = np.linspace(-5, 1, 121)
    return curve(2 - 1 / (1 + np.exp(-(x - middle) / width)) + np.exp(6 * (x - middle - 1.8)))


def test_smoothing_is_a_gaussian_in_decades_without_padding_at_the_ends() -> None:
    lrs = np.logspace(-4, 0, 81)
    losses = np.random.default_rng(0).normal(size=81)
    distance = np.log10(lrs)[:, None] - np.log10(lrs)[None, :]
    weights = np.exp(-((distance / 0.25) ** 2) / 2)
    expected = weights @ losses / weights.sum(axis=1)
    assert smooth(losses, lrs, 0.25) == pytest.approx(expected, abs=1e-3)


def test_smoothing_does_not_move_a_curve() -> None:
    lrs = np.logspace(-4, 0, 81)
    valley = (np.log10(lrs) + 2) ** 2
    assert lrs[np.argmin(smooth(valley, lrs, 0.35))] == pytest.approx(1e-2)


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
        (np.full(60, 2.3), "nor did it rise: raise end_lr"),
        (np.linspace(1, 5, 60), "at the lowest rates already: lower start_lr"),
        (np.array([2.0, 9.0]), "diverged within"),
    ],
)
def test_an_unusable_curve_is_refused_with_advice(losses: np.ndarray, said: str) -> None:
    with pytest.raises(UnusableCurveError, match=said):
        choose_lr([curve(losses)], "recipe", num_classes=10)


def test_the_mean_of_the_usable_curves_decides() -> None:
    flat = curve(np.full(121, 1.0))
    found = choose_lr([s_curve(-2.1), s_curve(-2.0), s_curve(-1.9), flat], "recipe", num_classes=10)
    assert np.log10(found.lr) == pytest.approx(np.log10(recipe(s_curve(-2.0))), abs=0.11)
    assert found.repeats == [recipe(s_curve(m)) for m in (-2.1, -2.0, -1.9)]
    assert found.spread == pytest.approx(max(found.repeats) / min(found.repeats))
    assert len(found.unusable) == 1
    assert found.improved
    with pytest.raises(UnusableCurveError, match="2 of 2 sweeps"):
        choose_lr([flat, flat], "recipe", num_classes=10)
    short = curve(np.array([2.0, 9.0]))
    with pytest.raises(UnusableCurveError, match="2 of 3 sweeps"):
        choose_lr([s_curve(-2.0), short, short], "recipe", num_classes=10)


def test_if_nothing_is_left_to_learn_a_third_of_the_highest_harmless_rate_is_chosen() -> None:
    x = np.linspace(-4, 0, 81)
    found = choose_lr([curve(0.06 + 0.06 * np.maximum(0, x + 2), -4, 0)], "recipe", num_classes=10)
    assert np.log10(3 * found.lr) == pytest.approx(-1.9, abs=0.06)  # a tenth of 0.06 is reached a tenth past -2
    assert not found.improved


def test_a_sweep_of_few_points_on_few_images_has_a_harmless_rate_too() -> None:
    x = np.linspace(-4, -2, 15)  # from -2 on it diverged
    found = choose_lr([curve(0.03 + 0.03 * np.maximum(0, x + 3.2), -4, -2)], "recipe", num_classes=2)
    assert np.log10(3 * found.lr) == pytest.approx(-3.15, abs=0.15)


def test_if_nothing_can_be_learned_no_rate_is_chosen() -> None:
    x = np.linspace(-4, 0, 81)
    at_chance = curve(np.log(10) + 2 * np.maximum(0, x + 2), -4, 0)
    with pytest.raises(UnusableCurveError, match=r"a blind guess among 10 classes has 2\.3026.*model\.weights"):
        choose_lr([at_chance], "recipe", num_classes=10)
    assert (
        3 * choose_lr([at_chance], "recipe", num_classes=100).lr > 1e-2
    )  # there the loss is half a blind guess's: much is known


def test_a_sweep_stops_where_it_diverges(tmp_path: Path) -> None:
    _, curves = find(learner(build_model()), tmp_path, replace(SETTINGS, end_lr=1e4, repeats=1))
    assert curves[0].lrs[-1] < 1e3
    assert len(curves[0].lrs) < 60
    assert np.isfinite(curves[0].losses).all()


def test_a_small_batch_steps_on_its_own_images_and_is_measured_on_more(tmp_path: Path) -> None:
    made, lr = learner(build_model(dropout=0.0)), 0.05
    find(made, tmp_path, replace(SETTINGS, start_lr=lr, repeats=1))
    sweep = cast("dict[str, Any]", read_kept(tmp_path / "sweep-0-0.json"))

    assert isinstance(made.train, TensorBatches)
    order = torch.tensor(permutation(37, 0, "lr_find_full", 0, "order", 0))
    model = made.model.train()
    model.zero_grad()

    def loss(*parts: torch.Tensor) -> torch.Tensor:  # each with its own batch statistics
        return torch.cat([F.cross_entropy(model(x[p]), y[p], reduction="none") for p in parts]).mean()

    x, y = made.train.inputs, made.train.targets
    first, second = order[:18].reshape(3, 6), (order[18:24], order[24:30], order[30:])
    untouched = [loss(*first).item(), loss(*second).item()]
    loss(order[:8]).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for group in made.groups:
            for parameter in group.parameters:
                assert parameter.grad is not None
                parameter.sub_(lr * group.lr_factor * parameter.grad)
    assert sweep["references"][:2] == pytest.approx(untouched)
    assert sweep["losses"][:2] == pytest.approx([untouched[0], loss(*second).item()])
    assert sweep["losses"][1] != pytest.approx(untouched[1], rel=1e-3)


def test_the_sweep_steps_with_the_learners_optimizer(tmp_path: Path) -> None:
    """AdamW's first step moves every weight by its rate, whatever the gradient."""
    lr = 1e-3
    made = replace(learner(build_model(dropout=0.0)), optimizer="adamw")
    moved: list[float] = []
    step = torch.optim.AdamW.step

    def watched(optimizer: torch.optim.AdamW, closure: None = None) -> object:
        before = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
        result = step(optimizer, closure)
        after = [p for g in optimizer.param_groups for p in g["params"]]
        moved.append(max((a - b).abs().max().item() for a, b in zip(after, before, strict=True)))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        find(made, tmp_path, replace(SETTINGS, start_lr=lr, repeats=1))
    assert moved[0] == pytest.approx(lr, rel=1e-3)


def test_a_loss_of_nan_at_once_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    made = learner(build_model())
    assert isinstance(made.train, TensorBatches)
    made.train.inputs[:] = float("nan")
    before, rng = copy.deepcopy(made.model.state_dict()), torch.get_rng_state()
    with pytest.raises(NumbersError, match="loss of the unchanged model is nan at step 0"):
        find(made, tmp_path)
    assert all(torch.equal(before[n], t) for n, t in made.model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())


def test_finding_changes_neither_model_nor_rng(tmp_path: Path) -> None:
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
    (tmp_path / "sweep-0-2.json").unlink()
    stamp = (tmp_path / "sweep-0-0.json").stat().st_mtime_ns
    again, _ = find(learner(build_model()), tmp_path)
    assert again == whole
    assert (tmp_path / "sweep-0-0.json").stat().st_mtime_ns == stamp


def test_a_sweep_that_begins_too_high_is_widened_downwards_and_finds_about_the_same_rate(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected, _ = find(learner(build_model()), tmp_path / "a")
    said: list[str] = []
    too_high = replace(SETTINGS, start_lr=30.0, end_lr=1e4)
    found, curves = find(learner(build_model()), tmp_path / "b", too_high, say=said.append)
    assert found.usable
    assert expected.lr / 5 < found.lr < 5 * expected.lr
    (reason,) = found.widened
    assert reason.startswith("30 to 1e+04 in 60 steps: 2 of 2 sweeps give no rate")  # the third was not needed
    assert said == [f"no rate can be read: {reason.partition(': ')[2]}. Next range: 0.03 to 300 in 60 steps"]
    assert len(curves) == 3


def test_where_nothing_can_be_read_a_safe_rate_is_taken_unless_the_run_is_to_fail(tmp_path: Path) -> None:
    made = learner(build_model())
    for parameter in made.model.parameters():
        parameter.data.zero_()
        parameter.requires_grad_(False)
    next(iter(made.model.parameters())).requires_grad_(True)  # its gradient is zero, for all after it are
    before, rng = copy.deepcopy(made.model.state_dict()), torch.get_rng_state()
    short = replace(SETTINGS, num_steps=20)
    found, _ = find(made, tmp_path, short)
    assert (found.usable, found.lr, found.improved, found.repeats) == (False, SAFE_LR, False, [])
    assert len(found.widened) == 3
    assert all(torch.equal(before[n], t) for n, t in made.model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    with pytest.raises(UnusableCurveError, match=r"no rate was found; swept 0\.0001 to 10 in 20 steps: .*; 0\.0001 to"):
        find(made, tmp_path, replace(short, on_unusable="fail"))


def test_where_every_rate_does_harm_the_lowest_tried_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> float:
        raise NotFiniteError("the gradients became NaN or infinite")

    monkeypatch.setattr(lr_sweep, "take_step", explode)
    made = learner(build_model())
    with pytest.raises(UnusableCurveError, match="diverged within 1 steps"):
        find(made, tmp_path, replace(SETTINGS, on_unusable="fail"))
    found, curves = find(made, tmp_path)
    assert not found.usable
    assert found.lr == pytest.approx(1e-10)
    assert all(len(c.lrs) == 0 for c in curves)
