"""The stage on pictures of which some lie in the wrong folder, and what happens when they are left out."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.manifest import read_manifest
from pipeline.files import read_json, read_jsonl
from pipeline.harness.dag import run_stages
from pipeline.settings import SettingsError
from stages.registry import ALL
from tests.conftest import TINY, Compose, Run

ONLY = ("ingest", "precompute", "cross_validate")
WRONG = {"train/plain/bars-01.png": "bars", "train/bars/dots-03.png": "dots", "valid/dots/plain-05.png": "plain"}


@pytest.fixture(scope="module")
def mixed_up(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """The small pictures in given splits, three of them in a wrong folder."""
    root = tmp_path_factory.mktemp("mixed up") / "photos"
    for split, numbers in (("train", range(16)), ("valid", range(16, 20)), ("test", range(20, 24))):
        for label in ("bars", "dots", "plain"):
            (root / split / label).mkdir(parents=True)
            for i in numbers:
                name = f"{i:02d}.{'png' if i % 2 else 'jpg'}"
                shutil.copy(pictures / label / name, root / split / label / name)
    for path, label in WRONG.items():
        shutil.move(root / "train" / label / f"{path[-6:-4]}.png", root / path)
    return root


@pytest.fixture(scope="module")
def found(mixed_up: Path, compose_conf: Compose, tmp_path_factory: pytest.TempPathFactory) -> Run:
    params = compose_conf(*TINY, f"data.root={mixed_up}", "cross_validate.num_folds=4")
    return Run(run_stages(ALL, params, tmp_path_factory.mktemp("found"), only=ONLY), params)


def rows_of(file: Path) -> list[dict[str, Any]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_what_lies_in_a_wrong_folder_is_suspect(found: Run) -> None:
    suspects = rows_of(found.folder("cross_validate") / "suspects.csv")
    assert {row["path"]: row["suggested"] for row in suspects[:3]} == WRONG
    margins = [float(row["margin"]) for row in suspects]
    assert margins == sorted(margins)
    assert all(-1 <= m < 0 for m in margins)
    assert len(suspects) == found.metrics("cross_validate")["num_suspects"] <= 5


def test_train_and_valid_are_predicted_and_test_is_not(found: Run) -> None:
    rows, metrics = rows_of(found.folder("cross_validate") / "predictions.csv"), found.metrics("cross_validate")
    manifest = read_manifest(found.folder("ingest"))
    assert [r["path"] for r in rows] == [s.path for split in ("train", "valid") for s in manifest.of(split)]
    assert len(rows) == metrics["num_images"] == 60
    assert metrics["accuracy"] == sum(int(r["correct"]) for r in rows) / 60
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    num_test = len(manifest.of("test"))
    assert metrics["num_test"] == num_test > 0
    assert metrics["expected_on_test_low"] < metrics["accuracy_low"]  # the test images are a matter of chance too
    assert metrics["expected_on_test_high"] * num_test == pytest.approx(
        round(metrics["expected_on_test_high"] * num_test)
    )
    assert metrics["log_loss_low"] < metrics["log_loss"] < metrics["log_loss_high"]
    assert {r["fold"] for r in rows} == {"0", "1", "2", "3"}
    for row in rows:
        probs = {name: float(row[f"p({name})"]) for name in manifest.classes}
        assert row["predicted"] == max(probs, key=probs.__getitem__)
        assert row["correct"] == str(int(row["predicted"] == row["label"]))
    folds = rows_of(found.folder("cross_validate") / "folds.csv")
    assert sum(int(r["images"]) for r in folds) == 60
    total = sum(int(r["images"]) * float(r["log_loss"]) for r in folds) / 60
    assert total == pytest.approx(metrics["log_loss"])


def test_an_edited_copy_of_the_suspects_leaves_them_out(
    found: Run, mixed_up: Path, compose_conf: Compose, tmp_path: Path
) -> None:
    shutil.copy(found.folder("cross_validate") / "suspects.csv", tmp_path / "mine.csv")
    listed = rows_of(tmp_path / "mine.csv")
    drop = tmp_path / "mine.csv"
    params = compose_conf(*TINY, f"data.root={mixed_up}", f"data.drop={drop}", "cross_validate.num_folds=4")
    artifacts = run_stages(ALL, params, tmp_path, only=ONLY)
    assert read_json(artifacts / "ingest" / "metrics.json")["dropped"] == len(listed)
    ledger = {line["path"]: line for line in read_jsonl(artifacts / "ingest" / "ledger.jsonl")}
    for row in listed:
        assert ledger[row["path"]]["verdict"] == "ignored"
        assert ledger[row["path"]]["reason"] == f"listed in data.drop={drop}"
    before, after = found.metrics("cross_validate"), read_json(artifacts / "cross_validate" / "metrics.json")
    assert after["num_images"] == 60 - len(listed)
    assert after["num_suspects"] == 0
    assert after["log_loss"] < before["log_loss"] / 2
    assert "dropped" not in found.metrics("ingest")


def test_more_folds_than_images_are_refused(pictures: Path, compose_conf: Compose, tmp_path: Path) -> None:
    for label in ("bars", "dots"):
        (tmp_path / "few" / label).mkdir(parents=True)
        for i in (1, 3, 5):
            shutil.copy(pictures / label / f"{i:02d}.png", tmp_path / "few" / label)
    params = compose_conf(*TINY, f"data.root={tmp_path / 'few'}", "cross_validate.num_folds=20")
    with pytest.raises(SettingsError, match=r"cross_validate\.num_folds=20 needs .* have (\d): set it to \1 or less"):
        run_stages(ALL, params, tmp_path, only=ONLY)
