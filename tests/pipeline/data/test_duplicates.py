"""Copies and near copies: found like a full comparison finds them, kept together, and handled as asked."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipeline.data import duplicates
from pipeline.data.duplicates import (
    Duplicate,
    Thumbnails,
    choose_drops,
    find_duplicates,
    find_near_pairs,
    join_groups,
    write_duplicates,
)
from pipeline.data.facts import THUMB_BYTES, Facts, look_at
from pipeline.data.found import FoundFile
from pipeline.data.manifest import Sample
from pipeline.data.register import Register
from pipeline.settings import Data, SettingsError, read_settings
from tests.conftest import Compose, ingest_folder


@pytest.fixture
def data(compose_conf: Compose) -> Data:
    return read_settings(compose_conf("data=folder", "data.root=x"), source="x").data


def scene(seed: int) -> Image.Image:
    """A smooth random picture, 96x80, as unlike others as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)


def sample(path: str, sha: str, *, label: str = "a", split: str = "", group: str | None = None) -> Sample:
    return Sample(path, label, split, sha if group is None else group, "", sha, 8, 8)


def find_among(files: list[str], facts: list[Facts]) -> list[Duplicate]:
    """The duplicates among files with these facts."""
    with closing(Register()) as register, closing(Thumbnails()) as thumbnails:
        register.add_found(FoundFile(name, "a", None) for name in files)
        for fact in register.add_facts(facts):
            thumbnails.append(fact)
        return find_duplicates(register, thumbnails, at_least=0.6).describe(register)


def test_near_pairs_equal_those_of_a_full_comparison() -> None:
    generator = np.random.default_rng(0)
    base = generator.integers(0, 2**63, 60, dtype=np.uint64)
    hashes = np.concatenate([base, *(base ^ flips(generator, bits) for bits in (1, 3, 6, 7, 10))])
    thumbs = np.tile(generator.integers(0, 255, (1, THUMB_BYTES), dtype=np.uint8), (len(hashes), 1))  # all look alike
    near, similarities = find_near_pairs(hashes, thumbs, among=np.arange(len(hashes)), at_least=0.9)
    found = {tuple(p) for p in near.tolist()}
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    expected = {(i, j) for i, j in np.argwhere(distance <= 6).tolist() if i < j}
    assert found == expected
    assert len(expected) >= 180
    assert len(similarities) == len(near)
    assert similarities.min() > 0.99


def flips(generator: np.random.Generator, bits: int) -> np.ndarray:
    chosen = [generator.choice(64, bits, replace=False) for _ in range(60)]
    return np.array([sum(1 << int(b) for b in bits_) for bits_ in chosen], dtype=np.uint64)


def test_very_many_equal_hashes_take_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image is compared with a few others only: with those that have about as much contrast."""
    calls = []

    def unlike(a: np.ndarray, _: np.ndarray) -> np.ndarray:
        calls.append(len(a))
        return np.zeros(len(a), np.float32)

    monkeypatch.setattr(duplicates, "similarity", unlike)
    thumbs = np.tile(np.random.default_rng(0).integers(0, 255, (1, THUMB_BYTES), dtype=np.uint8), (3000, 1))
    near, _ = find_near_pairs(np.zeros(3000, np.uint64), thumbs, among=np.arange(3000), at_least=0.6)
    assert len(near) == 0
    assert sum(calls) < 3000 * 20


@pytest.mark.parametrize("change", ["jpeg", "smaller", "brighter"])
def test_changed_photos_are_recognised(tmp_path: Path, change: str) -> None:
    for i in range(12):
        scene(i).save(tmp_path / f"{i}.png")
        changed = {
            "jpeg": scene(i),
            "smaller": scene(i).resize((60, 50), Image.Resampling.LANCZOS),
            "brighter": ImageEnhance.Brightness(scene(i)).enhance(1.1),
        }[change]
        changed.save(tmp_path / f"{i}-changed.jpg", quality=70)
    files = sorted(tmp_path.iterdir())
    facts = [look_at(f, background="white") for f in files]
    found = find_among([f.name for f in files], facts)
    assert {(d.first.path, d.second.path) for d in found} == {(f"{i}-changed.jpg", f"{i}.png") for i in range(12)}


def test_different_digits_are_not_near_copies(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    facts = []
    for pixels in load_digits().images[:200]:
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(tmp_path / "x.png")
        facts.append(look_at(tmp_path / "x.png", background="white"))
    assert find_among([str(i) for i in range(200)], facts) == []


def test_copies_have_equal_pixels_in_any_format(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.png")
    scene(0).save(tmp_path / "b.bmp")
    scene(0).save(tmp_path / "c.webp", lossless=True)
    facts = [look_at(tmp_path / name, background="white") for name in ("a.png", "b.bmp", "c.webp")]
    assert len({f.sha256 for f in facts}) == 1
    assert len({f.file_sha256 for f in facts}) == 3
    found = find_among(list("012"), facts)
    assert [(d.first.path, d.second.path, d.exact) for d in found] == [("0", "1", True), ("0", "2", True)]


def test_groups_join_through_many_steps_and_keep_the_sources_name() -> None:
    samples = [sample("p", "4", group="ann"), sample("q", "3", group="ann"), *(sample(x, x) for x in "5126")]
    duplicates = [Duplicate(samples[1], samples[2], False), Duplicate(samples[3], samples[4], True)]
    assert join_groups(duplicates) == {"5": "ann", "2": "1"}
    long = [sample(str(i), f"{i:02d}") for i in range(20)]
    chain = [Duplicate(long[i], long[i + 1], False) for i in range(18, -1, -1)]
    assert join_groups(chain) == {f"{i:02d}": "00" for i in range(1, 20)}


def test_the_copy_in_test_stays_and_contradictions_go() -> None:
    train, test = sample("a", "1", split="train"), sample("b", "1", split="test")
    cat, dog = sample("c", "2", label="cat"), sample("d", "2", label="dog")
    near, valid = sample("e", "3", split="train"), sample("f", "4", split="valid")
    duplicates = [Duplicate(train, test, True), Duplicate(cat, dog, True), Duplicate(near, valid, False)]
    assert set(choose_drops(duplicates)) == {"a", "c", "d", "e"}


def test_duplicates_are_written_with_the_most_serious_first(tmp_path: Path) -> None:
    cat, dog = sample("cat", "1", label="cat", split="train"), sample("dog", "1", label="dog", split="train")
    train, test = sample("x", "2", split="train"), sample("y", "2", split="test")
    near, far, copy = (sample(name, sha, split="valid") for name, sha in (("n", "3"), ("f", "4"), ("c", "4")))
    given = [
        Duplicate(far, copy, True),
        Duplicate(near, far, False),
        Duplicate(train, test, True),
        Duplicate(cat, dog, True),
    ]
    write_duplicates(tmp_path / "duplicates.jsonl", given)
    lines = [json.loads(line) for line in (tmp_path / "duplicates.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "first": "cat",
        "second": "dog",
        "exact": True,
        "similarity": 1.0,
        "splits": ["train", "train"],
        "labels": ["cat", "dog"],
    }
    assert [(x["first"], x["splits"]) for x in lines[1:]] == [
        ("x", ["train", "test"]),
        ("n", ["valid", "valid"]),
        ("f", ["valid", "valid"]),
    ]


def folder_with_copies(root: Path) -> Path:
    for k, (split, count) in enumerate((("train", 8), ("valid", 3), ("test", 3))):
        for label in ("a", "b"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                scene(1000 * k + 100 * (label == "b") + i).save(folder / f"{i}.png")
    scene(0).save(root / "test" / "a" / "copy.bmp")  # of train/a/0
    scene(1).save(root / "valid" / "a" / "near.jpg", quality=80)  # of train/a/1
    scene(2).save(root / "train" / "b" / "contradiction.png")  # of train/a/2
    return root


def test_leaks_are_kept_dropped_or_fatal_as_the_setting_says(tmp_path: Path, data: Data) -> None:
    root = folder_with_copies(tmp_path / "x")
    kept = ingest_folder(root, data)
    flagged = {line.path: line.reason for line in kept.ledger if line.verdict == "flagged"}
    assert len(kept.samples) == 31
    assert flagged["test/a/copy.bmp"] == "the same pixels as train/a/0.png in train"
    assert flagged["valid/a/near.jpg"].startswith("looks like train/a/1.png in train (similarity ")
    assert "labelled 'a'" in flagged["train/b/contradiction.png"]
    assert ["1 in different splits" in note for note in kept.notes] == [True]

    def gone(settings: Data) -> set[str]:
        dropped = ingest_folder(root, settings)
        lost = {s.path for s in kept.samples} - {s.path for s in dropped.samples}
        assert lost == {line.path for line in dropped.ledger if line.verdict == "rejected"}
        return lost

    copies = {"train/a/0.png", "train/a/2.png", "train/b/contradiction.png"}
    assert gone(replace(data, duplicates="drop")) == copies
    assert gone(replace(data, near_copies="drop")) == {"train/a/1.png"}
    assert gone(replace(data, duplicates="drop", near_copies="drop")) == copies | {"train/a/1.png"}

    with pytest.raises(SettingsError, match=r"2 pairs of images are the same, and data\.duplicates=fail"):
        ingest_folder(root, replace(data, duplicates="fail"))
    with pytest.raises(SettingsError, match=r"(?s)1 pairs of images are alike.*train/a/1.png' and 'valid/a/near.jpg"):
        ingest_folder(root, replace(data, near_copies="fail"))
    assert ingest_folder(root, replace(data, near_copies="off")).notes == []


def test_images_without_a_label_are_never_dropped() -> None:
    train, unlabelled = sample("a", "1", split="train"), sample("b", "1", label="", split="unlabelled")
    near = Duplicate(replace(train, path="c"), replace(unlabelled, sha256="2"), False)
    assert choose_drops([Duplicate(train, unlabelled, True), near]) == {}
    assert not near.crosses_labels


def test_copies_share_a_split(tmp_path: Path, data: Data) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(25):
            picture = scene(i + 100 * (label == "b"))
            picture.save(tmp_path / label / f"{i}.png")
            picture.save(tmp_path / label / f"{i}.jpg", quality=80)
    result = ingest_folder(tmp_path, data)
    splits: dict[str, set[str]] = {}
    for s in result.samples:
        splits.setdefault(s.path.partition(".")[0], set()).add(s.split)
    assert len(splits) == 50
    assert all(len(found) == 1 for found in splits.values())
