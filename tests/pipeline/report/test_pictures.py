"""Each stage's pictures are drawn from its folder, the same bytes each time, without what is slow to import."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.files import read_json, write_json, write_text
from pipeline.report.pictures import PAINTERS, draw_stage
from pipeline.report.tiles import heat_over
from stages import STAGES
from tests.pipeline.report.conftest import write_solved_head

pytestmark = pytest.mark.usefixtures("few_pixels")
PICTURES = {
    "ingest": ["class_counts.png", "duplicates.png", "samples.png", "troubles.png"],
    "augment_config": ["augmentations.png"],
    "precompute": [],
    "cross_validate": ["suspects.png"],
    "lr_find_head": ["lr_find.png"],
    "head_train": ["learning_curves.png", "schedule.png"],
    "head_train_augmented": ["learning_curves.png", "schedule.png"],
    "unfreeze": [],
    "lr_find_full": ["lr_find.png"],
    "full_train": ["learning_curves.png", "schedule.png", "sharpness.png"],
    "tta_evaluate": ["calibration.png", "confusion.png", "mistakes.png"],
}

TILES = {
    "ingest": [f"samples-{label:02}-{i:02}.webp" for label in range(2) for i in range(4)],
    "augment_config": [f"augmentations-{row:02}-{i:02}.webp" for row in range(2) for i in range(4)],
    "cross_validate": ["suspects-00.webp", "suspects-01.webp"],
    "tta_evaluate": ["doubtful-00.webp", "mistakes-00-where.webp", "mistakes-00.webp"],
}
"""Nothing spoke for the doubtful hit, so there is no second tile."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", PICTURES)
def test_two_draws_give_the_same_pictures(stage: str, folders: dict[str, Path], tmp_path: Path) -> None:
    first, second = (draw_stage(stage, folders, tmp_path / name) for name in "ab")
    assert [picture.name for picture in first] == PICTURES[stage]
    assert [picture.read_bytes() for picture in first] == [picture.read_bytes() for picture in second]
    tiles = [{p.name: p.read_bytes() for p in (tmp_path / name / "tiles").glob("*")} for name in "ab"]
    assert tiles[0] == tiles[1]
    assert sorted(tiles[0]) == TILES.get(stage, [])
    for picture in [*first, *(tmp_path / "a" / "tiles").glob("*")]:
        with Image.open(picture) as image:
            image.verify()


def test_a_solved_head_shows_its_weight_decays(folders: dict[str, Path], tmp_path: Path) -> None:
    write_solved_head(folders["head_train"])
    first, second = (draw_stage("head_train", folders, tmp_path / name) for name in "ab")
    assert [picture.name for picture in first] == ["learning_curves.png", "weight_decay.png"]
    assert [picture.read_bytes() for picture in first] == [picture.read_bytes() for picture in second]
    cycles = read_json(folders["head_train"] / "cycles.json")
    cycles["kept"]["cycles"] = [0]
    write_json(folders["head_train"] / "cycles.json", cycles)
    third = draw_stage("head_train", folders, tmp_path / "c")
    assert third[1].read_bytes() != first[1].read_bytes()


def test_pictures_belong_to_stages() -> None:
    assert set(PAINTERS) <= set(STAGES)


def test_a_map_colours_the_places_that_matter() -> None:
    image = Image.new("RGB", (100, 100), "white")
    hot = heat_over(image, [[255, 0], [0, 0]])
    colours = [hot.getpixel(at) for at in ((10, 10), (90, 90))]
    assert colours[0] == pytest.approx((243, 117, 27), abs=12)
    assert colours[1] == pytest.approx((178, 178, 178), abs=3)


def test_old_pictures_go_and_other_files_stay(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("old.png", "notes.txt"):
        (tmp_path / name).touch()
    draw_stage("lr_find_head", folders, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["lr_find.png", "notes.txt"]


def test_a_stage_without_pictures_creates_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    assert draw_stage("unfreeze", folders, tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_nothing_is_shown_of_what_did_not_happen(folders: dict[str, Path], tmp_path: Path) -> None:
    counts = {"flagged": 0, "rejected": 0}
    write_json(folders["ingest"] / "metrics.json", counts)
    write_text(folders["ingest"] / "duplicates.jsonl", "")
    assert [p.name for p in draw_stage("ingest", folders, tmp_path / "out")] == ["class_counts.png", "samples.png"]


@pytest.mark.parametrize("stage", ["ingest", "augment_config", "tta_evaluate"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("text")], ids=["gone", "text"])
def test_an_image_that_cannot_be_read_is_skipped(
    stage: str, damage: object, folders: dict[str, Path], tmp_path: Path
) -> None:
    whole = {p.name: p.read_bytes() for p in draw_stage(stage, folders, tmp_path / "whole")}
    assert callable(damage)
    for name in ("cat-0", "dog-10"):
        damage(folders["ingest"] / "images" / f"{name}.png")
    drawn = {p.name: p.read_bytes() for p in draw_stage(stage, folders, tmp_path / "out")}
    assert list(drawn) == PICTURES[stage]
    shown = {"samples.png", "duplicates.png", "augmentations.png", "mistakes.png"}
    assert {name for name in drawn if drawn[name] != whole[name]} == shown & set(PICTURES[stage])


def test_no_suspects_no_picture(folders: dict[str, Path], tmp_path: Path) -> None:
    write_text(folders["cross_validate"] / "suspects.csv", "path,label,suggested,self_confidence,margin\n")
    assert draw_stage("cross_validate", folders, tmp_path / "out") == []


def test_long_files_are_read_no_further_than_needed(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("manifest.jsonl", "ledger.jsonl"):
        with (folders["ingest"] / name).open("a") as file:
            file.write("this line would fail to parse\n")
    assert len(draw_stage("ingest", folders, tmp_path / "out")) == 4


def test_images_are_found_below_a_typed_root(folders: dict[str, Path], tmp_path: Path) -> None:
    drawn = {p.name: p.read_bytes() for p in draw_stage("ingest", folders, tmp_path / "out")}
    (folders["ingest"] / "images").rename(tmp_path / "images")
    write_json(folders["ingest"] / "source.json", {"root": str(tmp_path)})
    assert drawn == {p.name: p.read_bytes() for p in draw_stage("ingest", folders, tmp_path / "out")}


def test_drawing_augmentations_leaves_torchs_random_state(folders: dict[str, Path], tmp_path: Path) -> None:
    before = torch.get_rng_state()
    draw_stage("augment_config", folders, tmp_path / "out")
    assert torch.equal(before, torch.get_rng_state())


def test_views_differ_by_their_seeds(folders: dict[str, Path], tmp_path: Path) -> None:
    (first,) = draw_stage("augment_config", folders, tmp_path / "a")
    samples = folders["augment_config"] / "samples.json"
    samples.write_text(samples.read_text().replace("contact sheet", "another"))
    (second,) = draw_stage("augment_config", folders, tmp_path / "b")
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.parametrize("module", ["pictures", "lines", "sentences", "recipe"])
def test_nothing_heavy_is_imported(module: str) -> None:
    code = (
        f"import sys, pipeline.report.{module};"
        "heavy = {'torch', 'torchvision', 'scipy', 'sklearn', 'mlflow', 'hydra', 'dvc', 'matplotlib.pyplot'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
