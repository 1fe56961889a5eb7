"""What verdicts mean in words."""

from typing import Any

import pytest

from pipeline.report import sentences
from tests.pipeline.report.conftest import SCORES, lr_json


def cycles(best: int, since: int | None, last: int, kept: list[int], snapshots: str = "best") -> dict[str, Any]:
    """What `cycles.json` holds after `last` of three cycles."""
    return {
        "ends": [{"cycle": cycle, "valid_loss": 0.5 + 0.1 * abs(cycle - best)} for cycle in range(last + 1)],
        "kept": {"snapshots": snapshots, "cycles": kept, "valid_loss": 0.45, "valid_accuracy": 0.9},
        "verdict": {"best_cycle": best, "overfitting_since_cycle": since},
        "num_cycles": 3,
    }


@pytest.mark.parametrize(
    ("best", "since", "last", "said"),
    [
        (2, 3, 3, "Over-fitting began in cycle 3; cycle 2 is kept"),
        (3, None, 3, "No over-fitting after 3 of 3 cycles"),
        (1, None, 2, "Cycle 2 ended no better"),
        (1, None, 1, "No over-fitting after 1 of 3 cycles"),
        (1, None, 2, "without over-fitting; cycle 1 is kept"),
        (0, 1, 2, "began in cycle 1; the model as it was before this stage is kept"),
        (0, None, 1, "ended no better on validation images, without over-fitting; the model as it was before this"),
    ],
)
def test_over_fitting(best: int, since: int | None, last: int, said: str) -> None:
    assert said in sentences.overfitting(cycles(best, since, last, [best]), stage="full_train")


def test_more_cycles_are_suggested_by_the_name_of_the_setting() -> None:
    assert "head_train.num_cycles" in sentences.overfitting(cycles(3, None, 3, [3]), stage="head_train")


@pytest.mark.parametrize(
    ("snapshots", "kept", "what", "said"),
    [
        ("none", [2], "cycle 2", "Cycle 2 is kept (valid loss 0.4500"),
        ("best", [1], "cycle 1", None),
        (
            "average",
            [1, 0],
            "the mean of the weights of cycles 1 and 0 (0: before",
            "The mean of the weights of cycles",
        ),
        (
            "ensemble",
            [1, 0, 2],
            "the mean of the predictions of cycles 1, 0 and 2 (0",
            "The mean of the predictions of cyc",
        ),
        ("ensemble", [1], "cycle 1", "No mean of cycle ends was better on valid than cycle 1 alone"),
        ("average", [1], "cycle 1", "No mean of cycle ends was better on valid than cycle 1 alone"),
    ],
)
def test_what_is_kept(snapshots: str, kept: list[int], what: str, said: str | None) -> None:
    done = cycles(1, None, 2, kept, snapshots)
    assert sentences.kept_model(done["kept"]).startswith(what)
    sentence = sentences.kept_choice(done["kept"], done["ends"])
    assert sentence is None if said is None else str(sentence).startswith(said)
    assert said is None or "of cycle 1 alone 0.5000)" in str(sentence)


@pytest.mark.parametrize(
    ("kept", "by_chance", "said"),
    [
        ([1], 0.001, "Cycle 1 is kept: it lowers the loss on valid from 0.6000 to 0.5000, and choosing the best of 2"),
        ([1, 0], 0.34, "The mean of the weights of cycles 1 and 0 (0: before this stage) is kept: cycle 1 lowers the"),
        ([0], 0.34, "The model as it was before this stage is kept: cycle 1 lowers the loss on valid from 0.6000"),
        ([0], None, "No cycle was better on valid than the model as it was before this stage, which is kept."),
    ],
)
def test_a_cautious_choice_says_how_far_it_may_be_luck(kept: list[int], by_chance: float | None, said: str) -> None:
    ends = [{"cycle": cycle, "valid_loss": loss} for cycle, loss in enumerate((0.6, 0.5, 0.55))]
    choice = {"snapshots": "cautious", "cycles": kept, "valid_loss": 0.5, "by_chance": by_chance}
    sentence = str(sentences.kept_choice(choice, ends))
    assert sentence.startswith(said)
    assert by_chance is None or f"{by_chance:.0%} of cases" in sentence


def test_of_equal_cycles_the_earlier_is_the_best() -> None:
    ends = [{"cycle": cycle, "valid_loss": 0.5} for cycle in (1, 2)]
    kept = {"snapshots": "none", "cycles": [2], "valid_loss": 0.5}
    assert "of cycle 1 alone" in str(sentences.kept_choice(kept, ends))


@pytest.mark.parametrize(
    ("outcome", "said"), [("similar", "very similar"), ("different", "differs"), ("worse", "made the loss worse")]
)
def test_similarity(outcome: str, said: str) -> None:
    sentence = sentences.similarity({"outcome": outcome, "change": -0.01, "interval": [-0.02, 0.0]})
    assert said in sentence
    assert "-0.0100 (95 % interval -0.0200 to +0.0000)" in sentence


def test_advice_on_a_rate_names_the_setting_that_gave_it() -> None:
    worse = {"outcome": "worse", "change": 0.1, "interval": [0.0, 0.2]}
    for rates, setting in ((None, "full_train.lr."), ({"given": [1e-4, 1e-3], "found_lr": 0.01}, "unfreeze.lrs.")):
        verdict = {"similarity": worse, "rates": rates}
        assert sentences.full_train_verdict(cycles(1, None, 1, [1]), verdict)[-1].endswith(f"try a lower {setting}")


def test_a_ratio_outside_the_recipes_warns_and_says_why() -> None:
    assert sentences.ratio_warning(3.0) is None
    assert sentences.ratio_warning(10.0) is None
    assert "forgotten" in str(sentences.ratio_warning(2.0))
    assert "hardly learn" in str(sentences.ratio_warning(30.0))


def test_each_pair_of_given_rates_outside_the_recipes_factors_is_named() -> None:
    names = ["early", "middle", "head"]
    assert sentences.lrs_warnings([1e-5, 1e-4, 1e-3], names) == []
    assert sentences.lrs_warnings([1e-4, 3e-4, 9e-4], names) == []
    falling, steep = sentences.lrs_warnings([1e-3, 5e-4, 1e-2], names)
    assert "middle learns at 0.5 times the rate of early" in falling
    assert "head learns at 20 times the rate of middle" in steep


def test_rates_of_the_plan_are_warned_of_as_they_were_given() -> None:
    groups = [{"name": "backbone"}, {"name": "head"}]
    assert len(sentences.rate_warnings({"groups": groups, "lr_ratio": None, "lrs": [1e-3, 1e-3]})) == 1
    assert sentences.rate_warnings({"groups": groups, "lr_ratio": 3.0, "lrs": None}) == []
    assert len(sentences.rate_warnings({"groups": groups, "lr_ratio": 2.0})) == 1


def test_the_optimizer_and_why() -> None:
    assert sentences.optimizer({}) is None
    plan = {"optimizer": "adamw", "optimizer_setting": "auto"}
    assert sentences.optimizer(plan) == "The optimizer of full_train is AdamW, chosen by the architecture."


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (lr_json(), "the highest rate at which the loss still clearly improves"),
        (lr_json(improved=False), "a third of the highest rate at which the loss does not clearly rise"),
        (lr_json(rule="valley"), "by the rule `valley`"),
    ],
)
def test_why_a_rate_was_chosen(choice: dict[str, object], said: str) -> None:
    assert sentences.lr_choice(choice).startswith(f"Chosen: 0.01, {said}")


def test_notes_of_the_finder() -> None:
    assert sentences.lr_notes(lr_json()) == []
    assert sentences.lr_notes(lr_json(rule="valley", improved=False)) == []
    assert len(sentences.lr_notes(lr_json(improved=False, unusable=["flat", "too short"]))) == 3


@pytest.mark.parametrize("policy", ["frozen", "train"])
def test_each_batch_norm_policy_is_described(policy: str) -> None:
    assert sentences.batch_norm(policy).startswith(f"Batch norm ({policy}): ")


def test_how_tta_weighs_the_plain_image() -> None:
    card: dict[str, Any] = {"tta": {"mode": "flip"}, "plain_weight": None}
    assert sentences.tta_mode(SCORES, card).endswith("from 4 more views, all with the same weight.")
    assert "from 2.5 more views on average" in sentences.tta_mode({"num_views": 2.5}, card)
    assert "a weight of 60%, which gave the lowest log loss" in sentences.tta_mode(SCORES, card | {"plain_weight": 0.6})


def test_a_fall_of_the_log_loss_is_negative() -> None:
    assert "the log loss by -0.1000 (-0.3000 to +0.1000)" in sentences.tta_gain("test", SCORES)


def test_a_rate_that_could_not_be_read_is_said_to_be_safe_and_not_found() -> None:
    failed = ["0.0001 to 1 in 60 steps: it rose", "1e-07 to 0.001 in 60 steps: it rose"]
    choice = lr_json(improved=False) | {"lr": 1e-4, "repeats": [], "widened": failed, "usable": False}
    assert sentences.lr_choice(choice).startswith("No rate could be read off the sweeps: 0.0001 is taken")
    *ranges, last = sentences.lr_notes(choice)
    assert ranges == [f"no rate can be read in the range {reason}" for reason in failed]
    assert last.startswith("warning: no range gives a rate")
    found = lr_json() | {"widened": failed[:1], "usable": True}
    assert sentences.lr_choice(found).startswith("Chosen:")
    assert sentences.lr_notes(found) == [f"no rate can be read in the range {failed[0]}"]


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ([0], "the model as it was before this stage"),
        ([2], "the head with weight decay 0.25"),
        ([2, 1], "the mean of the heads with weight decay 0.25 and 1"),
        ([2, 0], "the mean of the head with weight decay 0.25, and of the head as it was before this stage"),
    ],
)
def test_a_solved_head_is_named_by_its_weight_decays(kept: list[int], said: str) -> None:
    solved = {"kept": {"snapshots": "average", "cycles": kept}, "weight_decays": [1.0, 0.25]}
    assert sentences.kept_head(solved) == said


def test_a_single_weight_decay_is_no_choice() -> None:
    assert sentences.tried_decays([0.01]) == "with a weight decay of 0.01"


def test_the_gap_is_told_with_its_error_and_not_of_results_that_do_not_say() -> None:
    told = {"ends": [{"valid_loss": 0.5, "train_loss": 0.3}], "train_plain": {"images": 2000, "standard_error": 0.012}}
    assert sentences.gap(told) == (
        "After the last cycle the loss is 0.5000 on validation images and 0.3000 on training images without "
        "augmentation (2,000 of them, standard error 0.0120)."
    )
    assert sentences.gap({"ends": told["ends"]}) is None
