"""The lines at the end of each stage."""

from pathlib import Path

import pytest

from pipeline.files import read_json, write_json, write_text
from pipeline.report.lines import summary
from tests.pipeline.report.conftest import lr_json, write_solved_head

TIMINGS = {"test/plain_ms_per_image": 0.381, "test/tta_ms_per_image": 2.36}
TTA = (
    "accuracy 0.5000 plain, 1.0000 with TTA (95 % 0.300 to 1.000); gain +50.00 points (+0.00 to +100.00, p = 1); "
    "4 views"
)
CALIBRATED = [
    "test, calibrated: probabilities at temperature 1.25 have a log loss of 0.6500 instead of 0.7000 (change -0.0500, "
    "95 % -0.1000 to +0.0100) and a calibration error of 0.0800 instead of 0.1000",
    "test, calibrated: sets of classes hold the true one: asked for 90 %, 50.0% (10.0% to 90.0%) with 1.50 classes on "
    "average",
]
TRAINED = "valid loss 0.5000, accuracy 0.9000 (cycle 2 of 2)"
WARNING = "warning: unfreeze.lr_ratio=2 is below 3"
SUSPECTS = "2 labels look wrong: artifacts/cross_validate/suspects.csv"
FULL = [
    "No over-fitting after 2 of 2 cycles",
    "After the last cycle the loss is ",
    "The data differs from the pretraining data: training all layers changed the loss by -0.3000 (95 % interval -0.4",
    "Weights changed in the first cycle by: early 1.00% (feature similarity 0.999).",
]
LINES = {
    "ingest": [
        "22 images in 2 classes (20 train, 2 test); 0 converted, 1 flagged, 1 rejected",
        "1 copies and 0 near copies, 0 across splits and 1 across labels (data.duplicates=report)",
        "rejected 'notes.txt': not an image but text",
        "flagged 'images/cat-1.png': one colour only",
    ],
    "augment_config": ["5 random transforms"],
    "precompute": [
        "resnet18 (glyphs): 512 features for each of 20 train images and 4 valid images, and for 2 augmented views of "
        "each train image",
        "the head begins with random weights",
    ],
    "cross_validate": [
        "5-fold on activations: accuracy 0.9000 (95 % 0.800 to 0.950), log loss 0.2500 (0.1250 to 0.5000)",
        SUSPECTS,
    ],
    "lr_find_head": ["lr 0.01 by rule recipe, spread x1.50 over 2 sweeps"],
    "head_train": [TRAINED],
    "head_train_augmented": [TRAINED],
    "unfreeze": [
        "early           12,345 parameters at 0.5 of the head's rate",
        "head                10 parameters at 1 of the head's rate",
        "The optimizer of full_train is SGD with momentum, chosen by the architecture.",
        WARNING,
    ],
    "lr_find_full": ["lr 0.01 by rule recipe, spread x1.50 over 2 sweeps"],
    "full_train": [TRAINED, *FULL],
    "tta_evaluate": [f"valid: {TTA}", f"test: {TTA}; 0.381 and 2.36 ms an image", *CALIBRATED],
}


@pytest.mark.parametrize("stage", LINES)
def test_lines(stage: str, folders: dict[str, Path]) -> None:
    lines = summary(stage, folders, TIMINGS)
    assert [line[: len(wanted)] for line, wanted in zip(lines, LINES[stage], strict=True)] == LINES[stage]


def test_a_stage_that_is_not_known_has_no_lines(folders: dict[str, Path]) -> None:
    assert summary("publish", folders, {}) == []


def test_the_finder_says_what_makes_its_choice_doubtful(folders: dict[str, Path]) -> None:
    write_json(folders["lr_find_full"] / "lr.json", lr_json(improved=False, unusable=["the loss is flat"]))
    notes = summary("lr_find_full", folders, {})[1:]
    assert [note.partition(":")[0] for note in notes] == ["the loss clearly falls at no rate", "one sweep gave no rate"]


def test_a_solved_head_names_its_weight_decay(folders: dict[str, Path]) -> None:
    write_solved_head(folders["head_train"])
    wanted = "valid loss 0.5000, accuracy 0.9000 (weight decay 0.25; 2 tried)"
    assert summary("head_train", folders, {}) == [wanted]


def test_the_first_accuracy_of_the_head_is_shown_where_it_was_measured(folders: dict[str, Path]) -> None:
    write_text(folders["precompute"] / "journal.jsonl", '{"step": 0, "values": {"valid_accuracy": 0.25}}\n')
    last = summary("precompute", folders, {})[-1]
    assert last == "the head begins with random weights: accuracy 0.2500 on valid"


def test_a_licence_of_the_weights_is_printed(folders: dict[str, Path]) -> None:
    write_json(folders["precompute"] / "model.json", {"weights": "https://host/w", "licence": "cc-by-nc-4.0"})
    said = "weights from https://host/w, licence: cc-by-nc-4.0"
    assert summary("precompute", folders, {})[-1] == said


def test_images_without_a_label_and_without_augmentation_are_mentioned(folders: dict[str, Path]) -> None:
    write_json(folders["ingest"] / "metrics.json", read_json(folders["ingest"] / "metrics.json") | {"unlabelled": 7})
    write_json(folders["augment_config"] / "metrics.json", {"num_transforms": 0})
    assert summary("ingest", folders, {})[1] == "7 images without a label, for predictions only"
    assert summary("augment_config", folders, {}) == ["no augmentation: training sees plain images"]


def test_tta_without_views_is_mentioned(folders: dict[str, Path]) -> None:
    scores = read_json(folders["tta_evaluate"] / "metrics.json")["valid"]
    write_json(folders["tta_evaluate"] / "metrics.json", {"valid": scores | {"num_views": 0.0}})
    assert summary("tta_evaluate", folders, {})[0].endswith("so TTA equals plain")


def test_only_the_first_troubles_are_listed(folders: dict[str, Path]) -> None:
    lines = [f'{{"path": "{i}.txt", "verdict": "rejected", "reason": "text"}}\n' for i in range(9)]
    write_text(folders["ingest"] / "ledger.jsonl", "".join([*lines[:5], "this line would fail to parse\n"]))
    metrics = read_json(folders["ingest"] / "metrics.json")
    write_json(folders["ingest"] / "metrics.json", metrics | {"rejected": 9, "flagged": 0})
    assert summary("ingest", folders, {})[2:] == [f"rejected '{i}.txt': text" for i in range(5)]


def test_images_that_were_left_out_are_counted(folders: dict[str, Path]) -> None:
    metrics, stage = (read_json(folders["ingest"] / name) for name in ("metrics.json", "stage.json"))
    write_json(folders["ingest"] / "metrics.json", metrics | {"dropped": 1})
    write_json(folders["ingest"] / "stage.json", {"settings": stage["settings"] | {"data.drop": "wrong.csv"}})
    assert "1 image left out: listed in data.drop=wrong.csv" in summary("ingest", folders, {})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"num_suspects": 0}, ["no label looks wrong"]),
        ({"num_suspects": 1}, ["1 label looks wrong: artifacts/cross_validate/suspects.csv"]),
        ({"num_suspects": 0, "num_unknown": 3}, ["no label looks wrong", "3 images cannot be judged: all images of"]),
    ],
)
def test_suspects_in_words(folders: dict[str, Path], found: dict[str, int], said: list[str]) -> None:
    metrics = read_json(folders["cross_validate"] / "metrics.json")
    write_json(folders["cross_validate"] / "metrics.json", metrics | found)
    lines = summary("cross_validate", folders, {})[1:]
    assert [line[: len(start)] for line, start in zip(lines, said, strict=True)] == said
