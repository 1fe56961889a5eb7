"""Where images come from. Whatever the source, from here on they are files under one root."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from pipeline.places import from_checkout
from pipeline.settings import Data, SettingsError

SPLITS = ("train", "valid", "test")
_SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Found:
    """A file that claims to be a sample."""

    path: str
    """Relative to the source's root, with forward slashes."""
    label: str
    split: str | None
    """None where the split is ours to choose."""


class Source(Protocol):
    """A set of labelled files."""

    root: Path

    def find(self) -> Iterator[Found]:
        """Yield every file below `root` that is to be looked at, in a fixed order."""
        ...


class Digits:
    """The 1,797 handwritten digits that scikit-learn carries (8x8, 17 gray levels), written out as PNG files.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (its test part).
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder

    def find(self) -> Iterator[Found]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = f"images/{label}/{i:04d}.png"
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(file)
            yield Found(path, str(label), None)


class Folder:
    """One folder per class, `root/<class>/*`, or the same below `train/`, `valid/` (or `val/`) and `test/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise SettingsError(
                f"data.root={root} is not a folder; give the folder whose sub-folders are the classes "
                "(data.root=path/to/images)"
            )

    def find(self) -> Iterator[Found]:
        folders = {p.name: p for p in _visible(self.root) if p.is_dir()}
        splits = {_SPLIT_NAMES[n.lower()]: p for n, p in folders.items() if n.lower() in _SPLIT_NAMES}
        if "train" in splits:
            for split in SPLITS:
                if split in splits:
                    yield from self._find_classes(splits[split], split)
            strays = sorted(set(folders) - {p.name for p in splits.values()})
            if strays:
                raise SettingsError(
                    f"data.root={self.root} has train/ beside {', '.join(strays[:5])}: put the classes inside the "
                    "split folders, or remove these"
                )
        else:
            yield from self._find_classes(self.root, None)

    def _find_classes(self, folder: Path, split: str | None) -> Iterator[Found]:
        # A folder of `train/` alone leaves the others to be cut from it; with valid/ or test/ given, they stand.
        for class_folder in _visible(folder):
            if class_folder.is_dir() and not self._leads_back(class_folder):
                for file in _files_below(class_folder):
                    yield Found(file.relative_to(self.root).as_posix(), class_folder.name, split)

    def _leads_back(self, folder: Path) -> bool:
        """Whether a link stands for the root, something above it, or another of its folders."""
        root, target = self.root.resolve(), folder.resolve()
        return folder.is_symlink() and (root.is_relative_to(target) or target.is_relative_to(root))


def open_source(data: Data, *, out: Path) -> Source:
    """The source that `data` names; one that makes files writes them below `out`."""
    if data.name == "digits":
        return Digits(out)
    return Folder(from_checkout(data.root or ""))


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in _LITTER)


def _files_below(folder: Path) -> Iterator[Path]:
    """Files below `folder` in a fixed order. Links to folders are not followed: they can lead back up."""
    for here, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _LITTER)
        yield from (Path(here) / f for f in sorted(files) if not f.startswith(".") and f not in _LITTER)
