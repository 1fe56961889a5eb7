"""Names and descriptions of rows, and the numbers that sum them up."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.headline import details, headline
from pipeline.report.row import base_label, describe, image_counts, job_name, num_parameters, run_name, short_changes
from stages import STAGES
from tests.conftest import Run

pytestmark = pytest.mark.xdist_group("recipe")


def folders_of(run: Run) -> dict[str, Path]:
    return {stage: run.folder(stage) for stage in STAGES}


def params(name: str = "digits", root: str | None = None, dataset: str | None = None) -> dict[str, Any]:
    data = {"name": name, "root": root, "dataset": dataset, "image_size": 224}
    return {"data": data, "model": {"arch": "squeezenet1_1", "weights": "imagenet"}}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (params(), "digits"),
        (params("folder", "/home/me/photos"), "photos"),
        (params("folder", "photos/"), "photos"),
        (params("folder", "my.photos.zip"), "my.photos"),
        (params("csv", "lists/birds.csv"), "birds"),
        (params("torchvision", "datasets", "CIFAR10"), "CIFAR10"),
    ],
)
def test_a_run_is_about_its_images_and_its_model(source: dict[str, Any], expected: str) -> None:
    assert base_label(source) == f"{expected} · squeezenet1_1"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([], ""),
        (["full_train.cycle_len=2", "full_train.cycle_mult=1"], "cycle_len=2 mult=1"),
        (["full_train.cycle_mult=1", "full_train.lr=0.01"], "cycle_mult=1 lr=0.01"),
        (["head_train.lr=0.1", "full_train.lr=0.01"], "head_train.lr=0.1 full_train.lr=0.01"),
        (["seed=1", "runtime.threads=2"], "seed=1"),
        (["a.b=1", "a.c=2", "a.d=3", "a.e=4", "a.f=5"], "b=1 c=2 d=3 +2"),
        (["experiment=quick", "full_train.lr=0.02"], "quick lr=0.02"),
        (["unfreeze.lrs=[1e-5,1e-4]"], "lrs=[1e-5,1e-4]"),
    ],
)
def test_a_name_says_what_differs(changed: list[str], expected: str) -> None:
    assert short_changes(changed) == expected


def test_a_job_is_called_by_its_changes_and_its_score() -> None:
    changed = ["experiment=quick", "full_train.cycle_len=2", "full_train.cycle_mult=1"]
    assert job_name(params(), changed, {"accuracy": 0.9123, "valid_accuracy": 0.9}) == "cycle_len=2 mult=1 · 91.2 %"
    assert job_name(params(), changed, {"valid_accuracy": 0.9}) == "cycle_len=2 mult=1 · valid 90.0 %"
    assert job_name(params(), [], {"valid_accuracy": 0.9}) == "digits · squeezenet1_1 · valid 90.0 %"
    assert job_name(params(), ["experiment=quick"], {}) == "quick"


def test_a_run_is_called_by_its_images_and_what_else_was_changed() -> None:
    photos = params("folder", "photos")
    choice = [
        "data.name=folder",
        "data.root=photos",
        "data.image_size=224",
        "model.arch=squeezenet1_1",
        "augment.flip=1",
    ]
    assert run_name(photos, choice, {"accuracy": 0.934}) == "photos · squeezenet1_1 · 93.4 %"
    changed = [*choice, "full_train.lr=0.01"]
    assert run_name(photos, changed, {"accuracy": 0.934}) == "photos · squeezenet1_1 · lr=0.01 · 93.4 %"
    assert run_name(params(), ["data.image_size=64"], {}) == "digits · squeezenet1_1 · image_size=64"


def test_the_headline_of_a_run(recipe: Run) -> None:
    folders = folders_of(recipe)
    scores = headline(folders, {"full_train": {"seconds": 4.0}})
    assert list(scores) == [
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "accuracy_tta",
        "valid_loss",
        "valid_accuracy",
        "kept_cycle",
        "epochs_run",
        "train_seconds",
        "images_per_s",
        "lr_head",
        "lr_full",
    ]
    test, trained = recipe.metrics("tta_evaluate")["test"], recipe.metrics("full_train")
    assert scores["accuracy"] == pytest.approx(test["plain"]["accuracy"], rel=1e-4)
    assert scores["accuracy_tta"] == pytest.approx(test["tta"]["accuracy"], rel=1e-4)
    assert scores["valid_loss"] == pytest.approx(trained["valid_loss"], rel=1e-4)
    assert scores["lr_full"] == pytest.approx(trained["lr"], rel=1e-4)
    assert scores["images_per_s"] == trained["epochs"] * recipe.metrics("ingest")["images"]["train"] / 4
    assert len(scores) + len(details(folders)) <= 30
    assert all(len(name) <= 40 for name in details(folders))


def test_a_job_of_one_stage_still_has_a_score(recipe: Run) -> None:
    """Without a prediction of test images, and without a duration."""
    folders = {name: folder for name, folder in folders_of(recipe).items() if name != "tta_evaluate"}
    scores = headline(folders, {})
    assert "accuracy" not in scores
    assert scores["valid_accuracy"] == pytest.approx(recipe.metrics("full_train")["valid_accuracy"], rel=1e-4)
    assert "train_seconds" not in scores
    heads = {name: recipe.folder(name) for name in ("ingest", "precompute", "lr_find_head", "head_train")}
    assert headline(heads, {})["valid_loss"] == pytest.approx(recipe.metrics("head_train")["valid_loss"], rel=1e-4)
    assert headline({}, {}) == {}


def test_a_run_is_described_in_five_lines(recipe: Run) -> None:
    folders = folders_of(recipe)
    scores = headline(folders, {})
    lines = describe(recipe.params, folders, ["full_train.lr=0.01"], scores)
    assert [line.partition(":")[0] for line in lines] == [
        f"**{name}**" for name in ("Score", "Images", "Model", "Changed", "Verdict")
    ]
    assert f"{100 * scores['accuracy']:.1f} %" in lines[0]
    assert "3 classes" in lines[1]
    assert "`full_train.lr=0.01`" in lines[3]
    assert not any("\n" in line for line in lines)


def test_a_run_without_results_is_described_too() -> None:
    lines = describe(params(), {}, [], {})
    assert "no model was trained" in lines[0]
    assert "nothing" in lines[3]
    assert image_counts({}) == {}
    assert num_parameters({}) is None


def test_constants_are_counted_from_the_folders(recipe: Run) -> None:
    folders = folders_of(recipe)
    assert image_counts(folders)["images"] == sum(recipe.metrics("ingest")["images"].values())
    parameters = num_parameters(folders)
    assert parameters is not None
    assert parameters > 11_000_000


def test_folders_that_do_not_exist_yet_are_no_error(tmp_path: Path) -> None:
    assert image_counts({"ingest": tmp_path}) == {}
