"""What a folder gives is used as given, or it is said what became of it."""

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.data.found import UNLABELLED
from pipeline.data.sources import open_source
from pipeline.settings import Data, SettingsError, read_settings
from tests.conftest import Compose, ingest_folder
from tests.pipeline.data.test_likeness import scene


@pytest.fixture
def data(compose_conf: Compose) -> Data:
    return read_settings(compose_conf("data=folder", "data.root=x"), source="x").data


def make(root: Path, *folders: str, count: int = 12) -> Path:
    for k, name in enumerate(folders):
        (root / name).mkdir(parents=True)
        for i in range(count):
            scene(1000 * k + i, (24, 20)).save(root / name / f"{i}.png")
    return root


def test_splits_inside_class_folders_are_used_as_given(tmp_path: Path, data: Data) -> None:
    looked = ingest_folder(make(tmp_path, "cat/train", "cat/test", "dog/train", "dog/test"), data)
    assert {(s.path.split("/")[1] == "test", s.split == "test") for s in looked.samples} == {(0, 0), (1, 1)}
    assert looked.classes == ["cat", "dog"]
    assert "cat/test/, cat/train/, dog/test/, dog/train/" in looked.notes[0]


def test_parts_of_one_class_are_no_splits_and_this_is_said(tmp_path: Path, data: Data) -> None:
    looked = ingest_folder(make(tmp_path, "cat/train", "cat/test", "dog"), data)
    assert "because dog/ is not divided in this way" in looked.notes[0]
    with pytest.raises(SettingsError, match=r"splits in images/: give data.root=.*/images"):
        ingest_folder(make(tmp_path / "x", "images/train/cat", "images/test/cat"), data)


def test_names_like_calibres_are_classes_and_hidden_folders_are_named(tmp_path: Path, data: Data) -> None:
    looked = ingest_folder(make(tmp_path, ".22", ".308", "9mm", ".git", "9mm/.ipynb_checkpoints"), data)
    assert looked.classes == [".22", ".308", "9mm"]
    assert looked.notes[:2] == [
        ".22, .308: taken for classes, though their names begin with a dot",
        "passed over: .git/ (hidden), 9mm/.ipynb_checkpoints/ (hidden); rename a folder if it is a class",
    ]


def test_images_beside_the_class_folders_are_told(tmp_path: Path, data: Data) -> None:
    root = make(tmp_path, "a", "b")
    scene(5000).save(root / "lost.png")
    assert "1 images are in no class folder and not used: lost.png" in ingest_folder(root, data).notes


def test_a_test_folder_of_unknown_images_is_for_predictions(tmp_path: Path, data: Data) -> None:
    looked = ingest_folder(make(tmp_path, "train/a", "train/b", "test/unknown"), data)
    assert sum(s.split == UNLABELLED for s in looked.samples) == 12
    assert looked.notes[0].startswith("test/unknown/ is no class of train/: its images are predicted")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("Cat", "cat", "differ only in upper and lower case"),
        (*(unicodedata.normalize(form, "café") for form in ("NFC", "NFD")), "how their letters are encoded"),
        ("dog", "dog ", "differ only in blanks"),
    ],
)
def test_near_names_of_classes_are_told(tmp_path: Path, data: Data, first: str, second: str, said: str) -> None:
    apart = make(tmp_path / "apart", f"train/{first}", "train/x", f"valid/{second}", "valid/x")
    with pytest.raises(SettingsError, match=rf"(?s){said}.* in valid"):
        ingest_folder(apart, data)
    [note] = ingest_folder(make(tmp_path / "together", first, second), data).notes
    assert said in note


def test_classes_that_a_split_lacks_are_told(tmp_path: Path, data: Data) -> None:
    notes = ingest_folder(make(tmp_path, "train/a", "train/b", "train/c", "valid/a"), data).notes
    assert notes == [
        "valid has no image of 2 of 3 classes (b, c): rates and cycles are chosen without them",
    ]


def test_a_class_named_like_a_split_can_be_renamed(tmp_path: Path, data: Data) -> None:
    with pytest.raises(SettingsError, match="train is a class like the others, rename its folder"):
        ingest_folder(make(tmp_path, "train", "bus", "car"), data)


def table(root: Path, splits: dict[int, str]) -> str:
    make(root, "cat", "dog")
    rows = (f"{x}/{i}.png,{x},p{i % 6},{splits.get(i, splits[-1])}" for x in ("cat", "dog") for i in range(12))
    (root / "t.csv").write_text("\n".join(["path,label,patient,split", *rows]))
    return str(root / "t.csv")


def looked_up(data: Data) -> tuple[dict[str, set[str]], list[str]]:
    """The splits of each group, and the notes."""
    from contextlib import closing

    from pipeline.data.ingest import ingest
    from pipeline.data.reader import read_facts
    from pipeline.data.register import Register
    from pipeline.workspace import Bar

    source = open_source(data, out=Path())
    with closing(Register()) as register:
        register.add_found(source.find())
        facts = read_facts(source.root, register.paths_to_read(), background="white", workers=1, bar=Bar())
        result = ingest(register, facts, data, seed=0)
        splits: dict[str, set[str]] = {}
        for s in register.samples():
            splits.setdefault(s.group, set()).add(s.split)
    return splits, result.notes


def test_the_rest_of_a_group_follows_its_given_rows(tmp_path: Path, data: Data) -> None:
    root = table(tmp_path, {0: "valid", 1: "valid", -1: ""})
    splits, notes = looked_up(replace(data, name="csv", root=root, group="patient"))
    assert all(len(found) == 1 for found in splits.values())
    assert splits["p0"] == splits["p1"] == {"valid"}
    assert {"test"} in splits.values()
    assert notes == []


def test_a_group_that_the_given_splits_divide_stops_ingest_or_moves(tmp_path: Path, data: Data) -> None:
    divided = dict.fromkeys((0, 4, 8), "valid") | {-1: "train"}
    given = replace(data, name="csv", root=table(tmp_path, divided), group="patient")
    with pytest.raises(SettingsError, match=r"3 of the groups .*: p0 \(2 in train, 2 in valid\), p2 .*=move"):
        looked_up(given)
    splits, [note] = looked_up(replace(given, on_split_group="move"))
    assert all(len(found) == 1 for found in splits.values())
    assert "moved to test, or else to valid" in note
    kept, [note] = looked_up(replace(given, on_split_group="keep"))
    assert kept["p0"] == {"train", "valid"}  # and not test, which is cut later
    assert "measure what training has seen" in note
