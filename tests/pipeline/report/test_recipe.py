"""The report of whole and of partial runs, from folders alone."""

import re
from pathlib import Path

import pytest

from pipeline.files import read_json, write_json
from pipeline.report.html import write_report
from pipeline.report.pictures import draw_stage
from pipeline.report.recipe import build_report
from tests.pipeline.report.conftest import CALIBRATED, CALIBRATION, write_solved_head

HEADINGS = [
    "The images",
    "Enable augmentation, precompute activations",
    "What to expect, and the labels that look wrong",
    "Find the learning rate of the head",
    "Train the head on precomputed activations",
    "Train the head with augmentation",
    "Unfreeze, with lower rates for earlier layers",
    "Find the learning rate again, for all layers",
    "Train everything until over-fitting",
    "Test-time augmentation and the scores",
    "Calibrated answers",
    "Correct and wrong predictions",
    "What to try next",  # the classes of the fixture are small
]


@pytest.mark.usefixtures("few_pixels")
def test_a_whole_run(folders: dict[str, Path], tmp_path: Path) -> None:
    pictures = [p for stage in folders for p in draw_stage(stage, folders, tmp_path / "drawn" / stage)]
    report = build_report(folders, tmp_path / "drawn")
    assert [section.heading for section in report.sections] == HEADINGS
    assert [section.step for section in report.sections] == [
        None,
        1,
        None,
        2,
        3,
        4,
        "5-6",
        7,
        8,
        "TTA",
        None,
        None,
        None,
    ]
    assert sorted(p.path for section in report.sections for p in section.pictures) == sorted(pictures)
    assert report.headline.startswith("With test-time augmentation 100.0% of 2 test images are classified correctly")
    assert report.headline.endswith("into 2 classes.")
    assert [tile.value for tile in report.tiles] == ["100.00%", "50.00%", "+50.00 pp", "0.6000"]
    write_report(tmp_path / "report.html", report=report)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(re.findall("data:image/png", page)) == len(pictures)
    assert "The head begins with random weights." in page
    assert "Cycle 2 is kept: validation loss 0.5000, accuracy 90.00%." in page


def test_given_rates_and_the_optimizer_are_in_the_report(folders: dict[str, Path], tmp_path: Path) -> None:
    plan = read_json(folders["unfreeze"] / "plan.json")
    write_json(folders["unfreeze"] / "plan.json", plan | {"lr_ratio": None, "lrs": [1e-4, 1e-3], "optimizer": "adamw"})
    cycles, verdict = (folders["full_train"] / name for name in ("cycles.json", "verdict.json"))
    write_json(cycles, read_json(cycles) | {"optimizer": "adamw"})
    write_json(verdict, read_json(verdict) | {"rates": {"given": [1e-4, 1e-3], "found_lr": 0.0123}})
    unfreeze, full_train = (s for s in build_report(folders, tmp_path).sections if s.step in ("5-6", 8))
    assert unfreeze.table is not None
    assert [row[-1] for row in unfreeze.table.rows] == ["0.0001", "0.001"]
    assert "The optimizer of full_train is AdamW, chosen by the architecture." in unfreeze.paragraphs
    assert full_train.paragraphs[0].startswith("3 epochs of AdamW at a rate of up to")
    assert any("lr_find_full found for the head, 0.0123, was not used" in p for p in full_train.paragraphs)


def test_a_solved_head_is_described(folders: dict[str, Path], tmp_path: Path) -> None:
    write_solved_head(folders["head_train"])
    report = build_report(folders, tmp_path)
    section = next(s for s in report.sections if s.step == 3)
    assert section.paragraphs == [
        "L-BFGS minimises the training loss in 15 passes over the activations, for 2 weight decays from 1 to 0.25, "
        "until the loss on valid stops falling. The head with weight decay 0.25 is kept: validation loss 0.5000, "
        "accuracy 90.00%."
    ]


def test_each_stage_may_be_missing(folders: dict[str, Path], tmp_path: Path) -> None:
    for left_out in folders:
        rest = {stage: folder for stage, folder in folders.items() if stage != left_out}
        write_report(tmp_path / "report.html", report=build_report(rest, tmp_path / "drawn"))


def test_each_stage_may_be_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    for stage, folder in folders.items():
        report = build_report({stage: folder}, tmp_path / "drawn")
        assert {section.heading for section in report.sections} <= set(HEADINGS)
        assert report.sections
        write_report(tmp_path / "report.html", report=report)


def test_an_untested_run_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    del folders["tta_evaluate"]
    report = build_report(folders, tmp_path)
    assert (
        report.headline == "After full_train, 90.0% of the validation images are classified correctly; not tested yet."
    )
    assert not report.tiles


def test_a_run_that_has_only_begun(folders: dict[str, Path], tmp_path: Path) -> None:
    report = build_report({"ingest": folders["ingest"], "full_train": tmp_path / "not there"}, tmp_path)
    assert (report.headline, len(report.sections)) == ("Nothing is trained yet.", 2)


def test_without_test_images_the_scores_are_those_of_valid(folders: dict[str, Path], tmp_path: Path) -> None:
    file = folders["tta_evaluate"] / "metrics.json"
    write_json(file, {"valid": read_json(file)["valid"]})
    assert "of 2 valid images are classified correctly" in build_report(folders, tmp_path).headline


def test_calibration_before_and_after_and_the_coverage_of_sets(folders: dict[str, Path], tmp_path: Path) -> None:
    (section,) = (s for s in build_report(folders, tmp_path).sections if s.heading == "Calibrated answers")
    assert section.table is not None
    rows = {row[0]: row[1:] for row in section.table.rows}
    assert rows["log loss before"] == ["0.7000", "0.7000"]
    assert rows["change (95 % interval)"][0] == "-0.0500 (-0.1000 to +0.0100)"
    assert (
        rows["sets asked to hold the true class for 90 %"][1] == "50.0% (10.0% to 90.0%) with 1.50 classes on average"
    )


def test_without_test_images_only_the_temperature_is_reported(folders: dict[str, Path], tmp_path: Path) -> None:
    file = folders["tta_evaluate"] / "metrics.json"
    only = {"temperature": CALIBRATION["temperature"]}
    write_json(file, {"valid": read_json(file)["valid"], "calibration": {"plain": only, "tta": only}})
    (section,) = (s for s in build_report(folders, tmp_path).sections if s.heading == "Calibrated answers")
    assert section.table is not None
    assert section.table.rows == [["temperature", "1.250", "1.250"]]


def test_a_run_made_before_the_calibration_has_no_such_section(folders: dict[str, Path], tmp_path: Path) -> None:
    file = folders["tta_evaluate"] / "metrics.json"
    write_json(file, {k: v for k, v in read_json(file).items() if k not in CALIBRATED})
    assert "Calibrated answers" not in [s.heading for s in build_report(folders, tmp_path).sections]
