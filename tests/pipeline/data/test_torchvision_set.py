"""Each file in conf/data that names a torchvision dataset loads it from files in the published format, few and tiny."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import savemat

from pipeline.data.found import FoundFile
from pipeline.data.sources import open_source
from pipeline.settings import SettingsError, read_settings
from pipeline.vision import datasets
from tests.conftest import PROJECT, Compose

Images = set[tuple[str | None, str, tuple[int, ...]]]
"""Split, label and colour of each."""


def colour(number: int) -> tuple[int, int, int]:
    return (40 * number, 255 - 40 * number, 17)


def draw(file: Path, number: int) -> None:
    """Write an image of a colour that identifies it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), colour(number)).save(file, "PNG")  # the decoder goes by content, and PNG is lossless


def make_cifar10(root: Path, trust: Callable[..., None]) -> Images:
    """Pickled batches: rows of 3,072 bytes (red, then green, then blue), and labels."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    batches = {**{f"data_batch_{i}": i for i in range(1, 6)}, "test_batch": 0}
    for file, number in batches.items():
        row = np.repeat(np.array(colour(number), np.uint8), 1024)[None]
        (folder / file).write_bytes(pickle.dumps({"data": row, "labels": [9 - number]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    trust("CIFAR10", train_list=[[f"data_batch_{i}", None] for i in range(1, 6)], test_list=[["test_batch", None]],
          meta={"filename": "batches.meta", "key": "label_names", "md5": None})  # fmt: skip
    return {("train" if n else "test", names[9 - n], colour(n)) for n in batches.values()}


def make_oxford_iiit_pet(root: Path, _: Callable[..., None]) -> Images:
    """Lines of image, breed from 1, kind of animal, breed of that kind."""
    folder = root / "oxford-iiit-pet"
    breeds = ["Abyssinian", "american_bulldog", "Bengal"]
    for k, split in enumerate(("trainval", "test")):
        lines = [f"{breed}_{100 + k} {i + 1} {1 + (i == 1)} {i + 1}" for i, breed in enumerate(breeds)]
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for i, breed in enumerate(breeds):
            draw(folder / "images" / f"{breed}_{100 + k}.jpg", i + 3 * k)
    names = ["Abyssinian", "American Bulldog", "Bengal"]
    return {(split, names[i], colour(i + 3 * k)) for k, split in enumerate(("train", "test")) for i in range(3)}


def make_flowers102(root: Path, trust: Callable[..., None]) -> Images:
    """MATLAB files: the label (from 1) of each image, and the numbers (from 1) of the images in each split."""
    folder = root / "flowers-102"
    for number in range(1, 7):
        draw(folder / "jpg" / f"image_{number:05d}.jpg", number - 1)
    savemat(folder / "imagelabels.mat", {"labels": [[77, 1, 77, 2, 102, 1]]})
    savemat(folder / "setid.mat", {"trnid": [[1, 4]], "valid": [[6, 2]], "tstid": [[5, 3]]})
    trust("Flowers102", _file_dict={name: (file, None) for name, (file, _) in datasets.Flowers102._file_dict.items()})
    first, second, last = "pink primrose", "hard-leaved pocket orchid", "blackberry lily"
    labels = ["passion flower", first, "passion flower", second, last, first]
    splits = ["train", "valid", "test", "train", "test", "valid"]
    return {(split, label, colour(i)) for i, (split, label) in enumerate(zip(splits, labels, strict=True))}


def make_food101(root: Path, _: Callable[..., None]) -> Images:
    """JSON by split: the images, without suffix, of each class."""
    folder, names = root / "food-101", ["waffles", "apple_pie", "ice_cream"]
    (folder / "meta").mkdir(parents=True)
    for k, split in enumerate(("train", "test")):
        listed = {name: [f"{name}/{1000 + k}"] for name in names}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for i, name in enumerate(names):
            draw(folder / "images" / name / f"{1000 + k}.jpg", i + 3 * k)
    return {(split, names[i], colour(i + 3 * k)) for k, split in enumerate(("train", "test")) for i in range(3)}


def make_imagenette(root: Path, _: Callable[..., None]) -> Images:
    """Folders by WordNet's numbers below the splits."""
    names = {"n01440764": "tench", "n03028079": "church", "n03888257": "parachute"}
    for k, split in enumerate(("train", "val")):
        for i, number in enumerate(names):
            draw(root / "imagenette2-320" / split / number / f"{number}_{i}.JPEG", i + 3 * k)
    labels = list(names.values())
    return {(split, labels[i], colour(i + 3 * k)) for k, split in enumerate(("train", "test")) for i in range(3)}


SETS = {
    "cifar10": make_cifar10,
    "oxford_iiit_pet": make_oxford_iiit_pet,
    "flowers102": make_flowers102,
    "food101": make_food101,
    "imagenette": make_imagenette,
}


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the checksums of a dataset, which our tiny files cannot match, and nothing else."""

    def set_checksums(name: str, **lists: Any) -> None:
        for attribute, value in lists.items():
            monkeypatch.setattr(getattr(datasets, name), attribute, value)

    return set_checksums


def find(name: str, root: Path, compose_conf: Compose) -> list[FoundFile]:
    data = read_settings(compose_conf(f"data={name}"), source="conf").data
    return list(open_source(replace(data, root=str(root)), out=root / "out").find())


@pytest.mark.parametrize("name", SETS)
def test_labels_splits_and_pixels_are_as_published(
    name: str, tmp_path: Path, compose_conf: Compose, trust: Callable[..., None]
) -> None:
    expected = SETS[name](tmp_path, trust)
    found = find(name, tmp_path, compose_conf)
    pixels = [np.asarray(Image.open(tmp_path / f.path).convert("RGB"))[5, 7].tolist() for f in found]
    assert {(f.split, f.label, tuple(p)) for f, p in zip(found, pixels, strict=True)} == expected
    assert len(found) == len(expected) == 6
    assert not any(f.problem or f.group for f in found)


@pytest.mark.parametrize("name", SETS)
def test_a_missing_set_is_named_without_a_network(
    name: str, tmp_path: Path, compose_conf: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("<urlopen error Temporary failure in name resolution>")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(SettingsError, match=r"cannot be downloaded .*download=True\), and copy what it puts"):
        find(name, tmp_path, compose_conf)


def test_every_ready_set_is_tested_here_or_with_the_sources() -> None:
    ready = {file.stem: yaml.safe_load(file.read_text()) for file in (PROJECT / "conf/data").glob("*.yaml")}
    named = {name for name, values in ready.items() if values["name"] == "torchvision"}
    assert named == {*SETS, "fashion_mnist", "eurosat"}


def test_class_names_are_distinct() -> None:
    names = [c if isinstance(c, str) else c[0] for c in datasets.Flowers102.classes]
    nets = [c[0] for c in datasets.Imagenette._WNID_TO_CLASS.values()]
    assert (len(set(names)), len(set(nets))) == (102, 10)
