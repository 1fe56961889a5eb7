"""Images that are alike stay together where the shares allow it, and it is said where they do not."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pipeline.settings import Data, SettingsError, read_settings
from tests.conftest import Compose, Looked, ingest_folder
from tests.pipeline.data.lookalikes import as_jpeg, coin, dial, frame, lamp, plot, still
from tests.pipeline.data.test_likeness import scene

Draw = Callable[[int], Image.Image]


@pytest.fixture
def data(compose_conf: Compose) -> Data:
    return read_settings(compose_conf("data=folder", "data.root=x"), source="x").data


def folder(root: Path, draw: Draw, per_class: int = 30) -> Path:
    for k, label in enumerate("ab"):
        (root / label).mkdir(parents=True)
        for i in range(per_class):
            draw(per_class * k + i).save(root / label / f"{i:02d}.png")
    return root


def sizes(looked: Looked) -> dict[str, int]:
    return {split: sum(by_class.values()) for split, by_class in looked.counts.items()}


@pytest.mark.parametrize("draw", [dial, plot, lamp, coin, frame, still])
def test_lookalikes_are_split_near_the_wanted_shares(tmp_path: Path, data: Data, draw: Draw) -> None:
    looked = ingest_folder(folder(tmp_path, draw), data)
    for by_class in (looked.counts["valid"], looked.counts["test"]):
        assert all(3 <= count <= 10 for count in by_class.values())  # of 30, where 6 are wanted
    apart = any(re.search(r"looks like \S+ in (train|valid|test)", line.reason) for line in looked.ledger)
    assert not apart or any("in different splits" in note for note in looked.notes)


def test_what_differs_by_noise_alone_is_split_and_the_way_on_is_named(tmp_path: Path, data: Data) -> None:
    looked = ingest_folder(folder(tmp_path, still), data)
    [note] = [note for note in looked.notes if "one by one" in note]
    assert "30 in a, " in note
    assert "data=csv data.group=<column>" in note
    assert "data.near_copies=off" in note


def test_frames_form_groups_but_no_chain(tmp_path: Path, data: Data) -> None:
    looked = ingest_folder(folder(tmp_path, frame), data)
    largest = Counter(s.group for s in looked.samples).most_common(1)[0][1]
    assert 2 <= largest <= 6  # a fifth of 30


def test_pairs_of_copies_share_a_split_and_off_and_flag_let_them_go(tmp_path: Path, data: Data) -> None:
    def draw(i: int) -> Image.Image:
        return as_jpeg(scene(i // 2)) if i % 2 else scene(i // 2)

    root = folder(tmp_path, draw, 40)

    def apart(settings: Data) -> int:
        split = {s.path: s.split for s in ingest_folder(root, settings).samples}
        return sum(split[f"{x}/{i:02d}.png"] != split[f"{x}/{i + 1:02d}.png"] for x in "ab" for i in range(0, 40, 2))

    assert apart(data) == 0
    assert apart(replace(data, near_copies="off")) == apart(replace(data, near_copies="flag")) > 5
    flagged = ingest_folder(root, replace(data, near_copies="flag"))
    assert sum("looks like" in line.reason for line in flagged.ledger) == apart(replace(data, near_copies="flag"))


def test_a_new_image_moves_none_of_another_class_or_likeness(tmp_path: Path, data: Data) -> None:
    root = folder(tmp_path, dial)
    before = {s.path: s.split for s in ingest_folder(root, data).samples}
    scene(1).save(root / "b" / "new.png")
    after = {s.path: s.split for s in ingest_folder(root, data).samples}
    moved = [path for path, split in before.items() if after[path] != split]
    assert len(moved) <= 3
    assert all(path.startswith("b/") for path in moved)


def test_the_true_cause_is_named_where_valid_stays_empty(tmp_path: Path, data: Data) -> None:
    one = folder(tmp_path / "one", scene, 1)
    with pytest.raises(SettingsError, match=r"a has 1 image; b has 1 image\. A class needs two"):
        ingest_folder(one, data)
    same = folder(tmp_path / "same", lambda i: scene(i // 20), 20)
    with pytest.raises(SettingsError, match=r"the 20 images of a are copies of one picture \(a/00.png"):
        ingest_folder(same, data)
    near = folder(tmp_path / "near", lambda i: as_jpeg(scene(i // 2), 75 + i % 2), 2)
    assert sizes(ingest_folder(near, data))["valid"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("draw", [dial, plot, lamp, coin, frame, still])
def test_nothing_is_dropped_that_is_no_copy_and_a_missing_split_is_cut(tmp_path: Path, data: Data, draw: Draw) -> None:
    folder(tmp_path / "train", draw)
    folder(tmp_path / "valid", lambda i: draw(i + 100), 6)
    looked = ingest_folder(tmp_path, replace(data, duplicates="drop"))
    assert sum(sizes(looked).values()) == 72
    assert sizes(looked)["valid"] == 12
    assert sizes(looked)["test"] >= 4  # of 60, where 12 are wanted, without those that are like valid's
