"""The report of whole and of partial runs, from folders alone."""

import re
from pathlib import Path

import pytest

from pipeline.files import read_json, write_json
from pipeline.report.html import write_report
from pipeline.report.pictures import draw_stage
from pipeline.report.recipe import build_report
from tests.pipeline.report.conftest import write_solved_head

HEADINGS = [
    "The images",
    "Enable augmentation, precompute activations",
    "Find the learning rate of the head",
    "Train the head on precomputed activations",
    "Train the head with augmentation",
    "Unfreeze, with lower rates for earlier layers",
    "Find the learning rate again, for all layers",
    "Train everything until over-fitting",
    "Test-time augmentation and the scores",
    "Correct and wrong predictions",
]


@pytest.mark.usefixtures("few_pixels")
def test_a_whole_run(folders: dict[str, Path], tmp_path: Path) -> None:
    pictures = [p for stage in folders for p in draw_stage(stage, folders, tmp_path / "drawn" / stage)]
    report = build_report(folders, tmp_path / "drawn")
    assert [section.heading for section in report.sections] == HEADINGS
    assert [section.step for section in report.sections] == [None, 1, 2, 3, 4, "5-6", 7, 8, "TTA", None]
    assert sorted(p.path for section in report.sections for p in section.pictures) == sorted(pictures)
    assert report.headline.startswith("With test-time augmentation 100.0% of 2 test images are classified correctly")
    assert report.headline.endswith("into 2 classes.")
    assert [tile.value for tile in report.tiles] == ["100.00%", "50.00%", "+50.00 pp", "0.6000"]
    write_report(tmp_path / "report.html", report=report)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(re.findall("data:image/png", page)) == len(pictures)
    assert "The head begins with random weights." in page
    assert "Cycle 2 is kept: validation loss 0.5000, accuracy 90.00%." in page


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
    assert (report.headline, len(report.sections)) == ("Nothing is trained yet.", 1)


def test_without_test_images_the_scores_are_those_of_valid(folders: dict[str, Path], tmp_path: Path) -> None:
    file = folders["tta_evaluate"] / "metrics.json"
    write_json(file, {"valid": read_json(file)["valid"]})
    assert "of 2 valid images are classified correctly" in build_report(folders, tmp_path).headline
