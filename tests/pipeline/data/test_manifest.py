"""The manifest: what is written is read, in a few bytes per sample."""

import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.images import targets_of
from pipeline.data.manifest import Sample, Samples, read_manifest, write_manifest


def sample(i: int, *, split: str = "train", label: str = "cat") -> Sample:
    digest = hashlib.sha256(str(i).encode()).hexdigest()
    return Sample(f"{label}/{i:08d}.jpg", label, split, digest, digest[::-1], digest, 500, 375 + i % 9)


ODD = [
    replace(sample(0), path="cat/caf\udce9.jpg", group="a patient"),  # a name that is not UTF-8
    replace(sample(1), path='cat/\n"猫" \U0001f408.jpg', label="", split="unlabelled"),
    replace(sample(2), group="", file_sha256=""),
    replace(sample(3), group="A" * 64, file_sha256="0" * 63, sha256=" " * 64),  # none is a digest in lower case
    replace(sample(4), split="valid", label="dog"),
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, ODD, ["cat", "dog"], root="photos")
    manifest = read_manifest(tmp_path)
    assert list(manifest.samples) == ODD
    assert [manifest.samples[i] for i in range(-5, 5)] == ODD * 2
    assert (manifest.classes, manifest.root, manifest.splits) == (("cat", "dog"), Path("photos"), ["train", "valid"])


def test_selections_are_those_of_a_list() -> None:
    rows = [sample(i, split=("train", "valid", "test")[i % 7 % 3], label="abc"[i % 5 % 3]) for i in range(60)]
    samples = Samples.of(rows)
    train, valid = ([s for s in rows if s.split == split] for split in ("train", "valid"))
    assert list(samples.of_splits(["valid", "train"])) == valid + train
    chosen = samples.of_splits(["train"])
    assert list(chosen[3:9]) == train[3:9]
    assert list(chosen.take([5, 0, 5])) == [train[5], train[0], train[5]]
    assert list(chosen.paths[:4]) == [s.path for s in train[:4]]
    assert chosen.sizes.tolist() == [[s.width, s.height] for s in train]
    assert targets_of(chosen, ["c", "b", "a"]).tolist() == ["cba".index(s.label) for s in train]
    assert not samples.of_splits(["unlabelled"])


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    write_manifest(tmp_path, [sample(i) for i in range(5000)], ["cat"], root=None)
    file = tmp_path / "manifest.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    for broken in ('{"path": "a"}\n', "7\n", '{"path": \n'):
        file.write_text("".join([*lines[:4999], broken]))
        with pytest.raises(ValueError, match=r"manifest\.jsonl is damaged in lines 4097 to 5000"):
            read_manifest(tmp_path)


def test_a_sample_takes_200_bytes(tmp_path: Path) -> None:
    """Python's objects would take 800."""
    write_manifest(tmp_path, map(sample, range(20_000)), ["cat"], root=None)
    read_manifest(tmp_path)  # what is imported and kept once
    tracemalloc.start()
    try:
        samples = read_manifest(tmp_path).samples
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(samples) < 230
    assert np.all(samples.sizes[:, 0] == 500)
