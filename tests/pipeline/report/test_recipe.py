"""The report of whole and of partial runs, from folders alone."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.files import read_json, write_json
from pipeline.report.facts import Before, Facts
from pipeline.report.html import write_report
from pipeline.report.pictures import draw_stage
from pipeline.report.recipe import build_report
from tests.pipeline.report.conftest import CALIBRATED, CALIBRATION, write_solved_head

HEADINGS = [
    "Also worth trying",
    "Class by class",
    "The most confident mistakes",
    "The least confident hits",
    "Calibrated answers",
    "Test-time augmentation and the scores",
    "The images",
    "Enable augmentation, precompute activations",
    "What to expect, and the labels that look wrong",
    "Find the learning rate of the head",
    "Train the head on precomputed activations",
    "Train the head with augmentation",
    "Unfreeze, with lower rates for earlier layers",
    "Find the learning rate again, for all layers",
    "Train everything until over-fitting",
    "Settings",
]
STEPS = [None, None, None, None, None, "TTA", None, 1, None, 2, 3, 4, "5-6", 7, 8, None]
ONLY_FILES = {"samples.png", "augmentations.png", "suspects.png", "mistakes.png"}
"""Contact sheets, whose images the page shows one by one."""
FACTS = Facts(
    date="1 May 2026, 10:00",
    commit="abc1234567",
    is_dirty=True,
    seconds={"ingest": 5.0, "full_train": 715.0},
    changed=["data.background=white"],
    reproduce=["git checkout abc1234567", "dvc exp run -S data.background=white"],
    predict=["unfreeze predict artifacts/tta_evaluate/model photo.jpg"],
    before=Before("30 Apr 2026, 09:00", 0.5, 0.5, 0.02, 2, ["seed: 0 -> 1"]),
)


@pytest.mark.usefixtures("few_pixels")
def test_a_whole_run(folders: dict[str, Path], tmp_path: Path) -> None:
    pictures = [p for stage in folders for p in draw_stage(stage, folders, tmp_path / "drawn" / stage)]
    report = build_report(folders, tmp_path / "drawn")
    assert [(section.heading, section.step) for section in report.sections] == list(zip(HEADINGS, STEPS, strict=True))
    plots = sorted(p for p in pictures if p.name not in ONLY_FILES)
    assert sorted(p.path for section in report.sections for p in section.pictures) == plots
    write_report(tmp_path / "report.html", report=report)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(re.findall("data:image/png", page)) == len(plots)
    shots = [image for section in report.sections for shot in section.shots for image in shot.images]
    assert len(re.findall("data:image/webp", page)) == len(shots)
    assert sorted(shots) == sorted((tmp_path / "drawn").glob("*/tiles/*.webp"))
    assert "The head begins with random weights." in page
    assert "Cycle 2 is kept: validation loss 0.5000, accuracy 90.00%." in page


def test_the_first_screen_names_what_which_how_well_and_from_what(folders: dict[str, Path], tmp_path: Path) -> None:
    report = build_report(folders, tmp_path, FACTS)
    assert (report.title, report.figure) == ("Tells apart cat and dog", "100.0 %")
    assert report.headline == (
        "of 2 unseen test images are classified correctly (95 % interval 30 to 100 %). With test-time augmentation, "
        "which did better on valid; plain images 50.0 %."
    )
    assert [(tile.label, tile.value, tile.detail) for tile in report.tiles] == [
        ("Data", "images", "22 images: 20 train, 2 test"),
        ("Model", "resnet18", "weights glyphs"),
        ("Made", "1 May 2026, 10:00", "12 min of work"),
        ("Code", "abc1234567", "with changes that are not committed"),
        ("Against the run before", "+50.00 points", "50.0 % on 30 Apr 2026, 09:00; paired test p = 0.02"),
    ]
    assert [section.heading for section in report.sections[-5:]] == [
        "What changed since the run before", "Use the model", "Make this run again", "Times", "Settings",
    ]  # fmt: skip
    settings = report.sections[-1].table
    assert settings is not None
    assert settings.rows[0] == ["data.background", "white", "changed"]


def test_the_mode_that_did_better_on_valid_is_first(folders: dict[str, Path], tmp_path: Path) -> None:
    file = folders["tta_evaluate"] / "metrics.json"
    write_json(file, read_json(file) | {"chosen": "plain"})
    report = build_report(folders, tmp_path)
    assert report.figure == "50.0 %"
    assert report.headline.endswith(
        "Plain images, which did as well or better on valid; with test-time augmentation 100.0 %."
    )


def test_the_verdict_answers_three_questions(folders: dict[str, Path], tmp_path: Path) -> None:
    (help_, overfit, next_) = build_report(folders, tmp_path).verdict
    assert help_ == (
        "Did training help?",
        "Training all layers helped: the loss on valid went from 0.900 to 0.500. From the first head to the end, the "
        "accuracy on valid went from 90.0 % to 90.0 %.",
    )
    assert overfit[1].startswith("No over-fitting after 2 of 2 cycles")
    assert next_[1].startswith("The validation loss still fell in the last cycle")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.7, "Training all layers helped: the loss on valid went from 0.900 to 0.500 (95 % interval of the fall"),
        (-0.1, 0.7, "Training all layers made no clear difference"),
        (-0.7, -0.1, "Training all layers did harm"),
    ],
)
def test_training_helped_only_if_its_gain_is_clear(
    low: float, high: float, said: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    file = folders["full_train"] / "cycles.json"
    write_json(file, read_json(file) | {"gain": {"loss": {"mean": 0.4, "low": low, "high": high}}})
    assert build_report(folders, tmp_path).verdict[0][1].startswith(said)


def test_stages_that_kept_the_model_before_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    for stage in ("head_train_augmented", "full_train"):
        file = folders[stage] / "cycles.json"
        cycles = read_json(file)
        cycles["kept"]["cycles"] = [0]
        write_json(file, cycles)
    said = build_report(folders, tmp_path).verdict[0][1]
    assert said.startswith("Training all layers did not help: no cycle was better on valid, so the model as it was")
    assert "Head_train_augmented too kept the model as it was before: no cycle was clearly better." in said
    cycles["kept"]["by_chance"] = 0.31
    write_json(folders["full_train"] / "cycles.json", cycles)
    assert "would come by luck alone in 31% of cases" in build_report(folders, tmp_path).verdict[0][1]


def test_facts_change_nothing_but_what_they_say(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, facts in (("a", FACTS), ("b", FACTS), ("c", replace(FACTS, date="2 May 2026, 10:00"))):
        write_report(tmp_path / name, report=build_report(folders, tmp_path, facts))
    a, b, c = ((tmp_path / name).read_text() for name in "abc")
    assert a == b
    assert a.replace("1 May", "2 May") == c


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
        report.headline == "After full_train, 90.0 % of the validation images are classified correctly; not tested yet."
    )
    assert (report.figure, [tile.label for tile in report.tiles]) == ("", ["Data", "Model"])


def test_a_run_that_has_only_begun(folders: dict[str, Path], tmp_path: Path) -> None:
    report = build_report({"ingest": folders["ingest"], "full_train": tmp_path / "not there"}, tmp_path)
    assert (report.headline, [s.heading for s in report.sections]) == (
        "Nothing is trained yet.",
        ["The images", "Settings"],
    )


def test_without_test_images_the_scores_are_those_of_valid(folders: dict[str, Path], tmp_path: Path) -> None:
    file = folders["tta_evaluate"] / "metrics.json"
    write_json(file, {"valid": read_json(file)["valid"]})
    headline = build_report(folders, tmp_path).headline
    assert headline.startswith("of 2 validation images are classified correctly (95 % interval 30 to 100 %). Choices")
    assert "there are no test images, so this is optimistic" in headline


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
