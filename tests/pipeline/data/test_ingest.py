"""Ingest: every file is read, what is wrong is reported, and splits are stratified and fixed by the seed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from pipeline.data.manifest import read_manifest, write_manifest
from pipeline.data.sources import Digits
from pipeline.settings import Data, SettingsError, read_settings
from tests.conftest import CLASSES, Compose, Looked, ingest_folder


@pytest.fixture
def data(compose_conf: Compose) -> Data:
    return read_settings(compose_conf("data=folder", "data.root=x"), source="x").data


def look(root: Path, data: Data, *, seed: int = 0) -> Looked:
    return ingest_folder(root, data, seed=seed)


def test_every_class_is_in_every_split(pictures: Path, data: Data) -> None:
    result = look(pictures, data)
    assert result.classes == list(CLASSES)
    assert all(count > 0 for by_class in result.counts.values() for count in by_class.values())
    assert sum(sum(by_class.values()) for by_class in result.counts.values()) == 72


def test_the_seed_fixes_the_split_and_another_changes_it(pictures: Path, data: Data) -> None:
    assert look(pictures, data) == look(pictures, data)
    assert look(pictures, data).samples != look(pictures, data, seed=1).samples


def test_the_split_does_not_depend_on_names(pictures: Path, data: Data, tmp_path: Path) -> None:
    renamed = Path(shutil.copytree(pictures, tmp_path / "x"))
    for file in renamed.glob("*/*"):
        file.rename(file.with_name(f"z{file.name}"))
    a = {s.sha256: s.split for s in look(pictures, data).samples}
    b = {s.sha256: s.split for s in look(renamed, data).samples}
    assert a == b


def test_given_split_folders_stand_and_missing_ones_are_cut_from_train(
    pictures: Path, data: Data, tmp_path: Path
) -> None:
    for name in CLASSES:
        shutil.copytree(pictures / name, tmp_path / "train" / name)
        (tmp_path / "val" / name).mkdir(parents=True)
        for file in (pictures / name).iterdir():
            ImageOps.invert(Image.open(file)).save(tmp_path / "val" / name / file.name)
    counts = {k: sum(v.values()) for k, v in look(tmp_path, data).counts.items()}
    assert counts["valid"] == 72
    assert counts["train"] + counts["test"] == 72
    assert 5 < counts["test"] < 25


def test_a_fraction_of_the_training_images_leaves_valid_and_test_alone(pictures: Path, data: Data) -> None:
    whole = look(pictures, data)
    thin = look(pictures, Data(**{**vars(data), "train_fraction": 0.5}))
    assert 10 < sum(thin.counts["train"].values()) < 33
    rest = [s for s in whole.samples if s.split != "train"]
    assert [s for s in thin.samples if s.split != "train"] == rest
    assert set(thin.samples) < set(whole.samples)


def test_bad_files_are_rejected_and_system_files_ignored_by_name(pictures: Path, data: Data, tmp_path: Path) -> None:
    root = Path(shutil.copytree(pictures, tmp_path / "x"))
    (root / "bars" / "broken.jpg").write_bytes((root / "bars" / "00.jpg").read_bytes()[:300])
    (root / "bars" / "notes.txt").write_text("hello")
    (root / "bars" / "new\nline \U0001f600 'quoted'.png").write_bytes((root / "bars" / "01.png").read_bytes())
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints" / "x.png").touch()
    (root / "__MACOSX").mkdir()
    (root / "bars" / "Thumbs.db").touch()
    (root / "loop").symlink_to(root)
    (root / "bars" / "up").symlink_to(root)
    result = look(root, replace(data, max_rejected=0.1))
    by_verdict = {v: {x.path for x in result.ledger if x.verdict == v} for v in ("rejected", "ignored", "flagged")}
    assert by_verdict == {
        "rejected": {"bars/broken.jpg", "bars/notes.txt", "bars/up", "loop"},
        "ignored": {".ipynb_checkpoints", "__MACOSX", "bars/Thumbs.db"},
        "flagged": {"bars/new\nline \U0001f600 'quoted'.png"},
    }
    assert len(result.samples) == 73
    write_manifest(tmp_path, result.samples, result.classes, root=str(root))
    assert list(read_manifest(tmp_path).samples) == result.samples


def test_a_missing_folder_one_class_and_no_images_are_refused(pictures: Path, data: Data, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        look(tmp_path / "no", data)
    with pytest.raises(SettingsError, match="holds no files"):
        look(tmp_path, data)
    shutil.copytree(pictures / "bars", tmp_path / "bars")
    with pytest.raises(SettingsError, match="one class only, bars"):
        look(tmp_path, data)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    with pytest.raises(SettingsError, match=r"1 file was rejected, first: text/a\.txt"):
        look(tmp_path, data)


def test_classes_beside_split_folders_are_refused(pictures: Path, data: Data, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "train")
    shutil.copytree(pictures / "bars", tmp_path / "bars")
    with pytest.raises(SettingsError, match="train/ beside bars"):
        look(tmp_path, data)


def test_digits_are_written_as_they_are(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    found, images = list(Digits(tmp_path).find()), load_digits().images
    assert len(found) == 1797
    for i in (0, 900, 1796):
        stored = Image.open(tmp_path / found[i].path)
        expected = images[i] * 255 / 16
        assert abs(expected - stored).max() <= 0.5
