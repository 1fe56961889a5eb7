"""What to try next follows from the curves: each rule speaks where it should, and is silent elsewhere."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.files import write_csv, write_json
from pipeline.report.advice import advise

CHOICE = {"lr": 0.01, "usable": True, "widened": [], "swept": [1e-4, 1.0]}


def cycles(losses: list[float], *, num_cycles: int, since: int | None = None) -> dict[str, Any]:
    ends = [{"cycle": i, "valid_loss": loss} for i, loss in enumerate(losses)]
    return {"ends": ends, "num_cycles": num_cycles, "verdict": {"overfitting_since_cycle": since}}


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Path]:
    """A run in which there is nothing to say."""
    folders = {name: tmp_path / name for name in ("ingest", "lr_find_full", "full_train", "tta_evaluate")}
    for folder in folders.values():
        folder.mkdir()
    write_json(folders["ingest"] / "class_counts.json", {"train": {"ant": 40, "bee": 50}})
    write_json(folders["lr_find_full"] / "lr.json", CHOICE)
    write_json(folders["full_train"] / "cycles.json", cycles([0.5, 0.3, 0.31], num_cycles=3))
    write_csv(folders["tta_evaluate"] / "confusion.csv", [["label", "ant", "bee"], ["ant", 20, 1], ["bee", 1, 20]])
    return folders


def test_where_nothing_is_to_be_done_nothing_is_said(run: dict[str, Path]) -> None:
    assert advise(run) == []
    assert advise({}) == []


def test_a_loss_that_still_falls_asks_for_more_cycles(run: dict[str, Path]) -> None:
    write_json(run["full_train"] / "cycles.json", cycles([0.5, 0.4, 0.3], num_cycles=2))
    assert advise(run) == [
        "The validation loss still fell in the last cycle (from 0.4000 to 0.3000): raise full_train.num_cycles above 2."
    ]
    write_json(run["full_train"] / "cycles.json", cycles([0.5, 0.4, 0.3], num_cycles=3))  # stopped before
    assert advise(run) == []
    write_json(run["full_train"] / "cycles.json", cycles([0.5, 0.4, 0.399], num_cycles=2))  # hardly falls
    assert advise(run) == []


def test_over_fitting_from_the_first_cycle_asks_for_augmentation_or_images(run: dict[str, Path]) -> None:
    write_json(run["full_train"] / "cycles.json", cycles([0.3, 0.4], num_cycles=3, since=1))
    (sentence,) = advise(run)
    assert "over-fitted from its first cycle" in sentence
    write_json(run["full_train"] / "cycles.json", cycles([0.3, 0.2, 0.4], num_cycles=3, since=2))
    assert advise(run) == []


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"lr": 1.5e-4}, "lower edge of its sweep: lower lr_find_full.start_lr"),
        ({"lr": 0.7}, "upper edge of its sweep: raise lr_find_full.end_lr"),
        ({"usable": False}, "lr_find_full could read no rate"),
    ],
)
def test_a_rate_at_the_edge_or_none_asks_for_another_sweep(
    run: dict[str, Path], choice: dict[str, Any], said: str
) -> None:
    write_json(run["lr_find_full"] / "lr.json", CHOICE | choice)
    (sentence,) = advise(run)
    assert said in sentence


def test_a_pair_that_is_confused_is_named(run: dict[str, Path]) -> None:
    write_csv(run["tta_evaluate"] / "confusion.csv", [["label", "ant", "bee"], ["ant", 15, 6], ["bee", 1, 20]])
    (sentence,) = advise(run)
    assert sentence.startswith("6 of 7 mistakes take 'ant' for 'bee'")


def test_small_classes_are_counted_and_the_smallest_named(run: dict[str, Path]) -> None:
    write_json(run["ingest"] / "class_counts.json", {"train": {"ant": 3, "bee": 12, "cat": 90}})
    (sentence,) = advise(run)
    assert sentence.startswith("2 classes have fewer than 20 training images (the smallest, 'ant', 3)")


def test_no_more_than_three_things_are_said(run: dict[str, Path]) -> None:
    write_json(run["full_train"] / "cycles.json", cycles([0.3, 0.4], num_cycles=3, since=1))
    write_json(run["lr_find_full"] / "lr.json", CHOICE | {"lr": 0.7})
    write_csv(run["tta_evaluate"] / "confusion.csv", [["label", "ant", "bee"], ["ant", 15, 6], ["bee", 1, 20]])
    write_json(run["ingest"] / "class_counts.json", {"train": {"ant": 3, "bee": 12}})
    assert len(advise(run)) == 3
