"""The model card names what a stranger must know, and no path of the machine."""

import re
from pathlib import Path

import pytest

from pipeline.files import read_json, write_json
from pipeline.report.model_card import write_model_card
from tests.conftest import Run

pytestmark = pytest.mark.xdist_group("recipe")

STAGES = ("ingest", "precompute", "full_train", "tta_evaluate")


@pytest.fixture
def folders(recipe: Run, tmp_path: Path) -> dict[str, Path]:
    """Copies of the small files of a finished run."""
    made = {}
    for stage in STAGES:
        made[stage] = tmp_path / stage
        made[stage].mkdir()
        for file in recipe.folder(stage).glob("*.json"):
            (made[stage] / file.name).write_bytes(file.read_bytes())
    return made


def card_of(folders: dict[str, Path], tmp_path: Path) -> str:
    write_model_card(tmp_path / "MODEL_CARD.md", folders)
    return (tmp_path / "MODEL_CARD.md").read_text()


def test_it_tells_what_the_run_found(folders: dict[str, Path], recipe: Run, tmp_path: Path) -> None:
    card, scores = card_of(folders, tmp_path), recipe.metrics("tta_evaluate")["test"]
    assert card.startswith("# Model card: pictures0, resnet18\n")
    assert "It tells apart 3 classes of images: **bars**, **dots**, **plain**." in card
    counts = read_json(folders["ingest"] / "class_counts.json")
    assert f"| bars | {counts['train']['bars']} | {counts['valid']['bars']} | {counts['test']['bars']} |" in card
    assert f"| test, plain | {scores['num_images']} | {scores['plain']['accuracy']:.1%} | " in card
    assert f"| test, with TTA | {scores['num_images']} | {scores['tta']['accuracy']:.1%} | " in card
    assert "- Pretrained weights: `glyphs`. Their licence binds what is made from them: Apache-2.0" in card
    assert f"{scores['num_images']} test images are few" in card
    assert "unfreeze predict artifacts/tta_evaluate/model" in card
    assert recipe.params["data"]["root"] not in card
    assert not re.search(r"\{\{|\}\}|None", card)


def test_names_and_missing_parts_do_not_break_it(folders: dict[str, Path], tmp_path: Path) -> None:
    name = "a|b *c*\n<d>"
    write_json(folders["ingest"] / "classes.json", [name, "dots", "plain"])
    write_json(folders["ingest"] / "class_counts.json", {"train": {name: 3, "dots": 99, "plain": 99}, "valid": {}})
    record = read_json(folders["precompute"] / "stage.json")
    record["settings"]["model.weights"] = "/home/somebody/weights/own.safetensors"
    write_json(folders["precompute"] / "stage.json", record)
    scores = read_json(folders["tta_evaluate"] / "metrics.json")
    del scores["test"]
    for known in scores["calibration"].values():
        del known["test"]
    write_json(folders["tta_evaluate"] / "metrics.json", scores)
    card = card_of(folders, tmp_path)
    assert r"| a\|b \*c\* \<d\> | 3 | 0 |" in card
    assert r"Fewer than 20 training images: a\|b \*c\* \<d\>." in card
    assert "There were no test images" in card
    assert "`own.safetensors`. Their licence binds what is made from them: not known here" in card
    assert "somebody" not in card
