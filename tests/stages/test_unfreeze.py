"""Rates of layer groups as an array, and the optimizer: from the settings to the training."""

import csv
from pathlib import Path

import pytest

from pipeline.files import read_json
from pipeline.harness.dag import run_stages
from pipeline.report.lines import summary
from stages.registry import ALL
from stages.unfreeze import lr_factors
from tests.conftest import TINY, Compose, Run

pytestmark = pytest.mark.xdist_group("recipe")
LRS = [1e-4, 1e-3, 5e-3]


def test_factors_come_from_the_ratio_or_from_the_rates() -> None:
    assert lr_factors(3, ratio=3.0, lrs=None) == pytest.approx([1 / 9, 1 / 3, 1])
    assert lr_factors(3, ratio=None, lrs=LRS) == pytest.approx([0.02, 0.2, 1])


def test_the_default_plan_is_sgd_by_ratio(recipe: Run) -> None:
    plan = read_json(recipe.folder("unfreeze") / "plan.json")
    assert (plan["lr_ratio"], plan["lrs"]) == (3.0, None)
    assert (plan["optimizer"], plan["optimizer_setting"]) == ("sgd", "auto")
    assert read_json(recipe.folder("full_train") / "cycles.json")["optimizer"] == "sgd"
    assert read_json(recipe.folder("full_train") / "verdict.json")["rates"] is None


@pytest.mark.slow
def test_given_rates_are_trained_at_and_the_finders_is_only_reported(
    recipe: Run, tmp_path: Path, compose_conf: Compose, pictures: Path
) -> None:
    changes = ("unfreeze.lr_ratio=null", "unfreeze.lrs=[1e-4,1e-3,5e-3]", "full_train.optimizer=adamw")
    shorter = ("full_train.num_cycles=1", "full_train.batch_size=full")
    params = compose_conf(*TINY, f"data.root={pictures}", *changes, *shorter)
    made = ("ingest", "augment_config", "precompute", "head_train_augmented", "lr_find_full")
    (tmp_path / "artifacts").mkdir()
    for name in made:
        (tmp_path / "artifacts" / name).symlink_to(recipe.folder(name))
    only = ("unfreeze", "full_train")
    artifacts = run_stages(ALL, params, tmp_path, only=only)
    folders = {name: artifacts / name for name in ("lr_find_full", *only)}

    plan = read_json(folders["unfreeze"] / "plan.json")
    assert (plan["lr_ratio"], plan["lrs"]) == (None, LRS)
    assert [g["lr_factor"] for g in plan["groups"]] == pytest.approx([0.02, 0.2, 1])
    assert (plan["optimizer"], plan["optimizer_setting"]) == ("adamw", "adamw")
    assert read_json(folders["full_train"] / "metrics.json")["lr"] == LRS[-1]
    with (folders["full_train"] / "schedule.csv").open(newline="") as file:
        _, first, *_ = csv.reader(file)
    assert [float(rate) for rate in first[1:]] == pytest.approx(LRS)
    assert read_json(folders["full_train"] / "cycles.json")["optimizer"] == "adamw"
    found = read_json(folders["lr_find_full"] / "lr.json")["lr"]
    assert read_json(folders["full_train"] / "verdict.json")["rates"] == {"given": LRS, "found_lr": found}
    said = summary("full_train", folders, {})
    assert any(f"found for the head, {found:.3g}, was not used" in line for line in said)
    early, _, _, optimizer = summary("unfreeze", folders, {})
    assert early.endswith("parameters at 0.0001")
    assert optimizer == "The optimizer of full_train is AdamW, as set."
