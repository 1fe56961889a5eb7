"""Where images come from. Whatever the source, from here on they are files under one root."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from pipeline.data import archive, table, torchvision_set
from pipeline.data.folder import find_in_folder
from pipeline.data.found import SPLIT_NAMES, UNLABELLED, Found
from pipeline.paths import from_checkout
from pipeline.settings import Data, SettingsError


class Source(Protocol):
    """A set of labelled files."""

    @property
    def root(self) -> Path:
        """What the paths found are relative to."""
        ...

    def find(self) -> Iterator[Found]:
        """Yield every file that is there, in a fixed order. Raises SettingsError."""
        ...


@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits that scikit-learn carries (8x8, 17 gray levels), written out as PNG files.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (its test part).
    """

    root: Path

    def find(self) -> Iterator[Found]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = f"images/{label}/{i:04d}.png"
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(file)
            yield Found(path, str(label), None)


@dataclass(frozen=True)
class Folder:
    """One folder per class, `root/<class>/*`, or the same below `train/`, `valid/` (or `val/`) and `test/`."""

    root: Path

    def find(self) -> Iterator[Found]:
        if not self.root.is_dir():
            raise SettingsError(
                f"data.root={self.root} is not a folder; give the folder whose sub-folders are the classes "
                "(data.root=path/to/images)"
            )
        yield from find_in_folder(self.root, relative_to=self.root)


@dataclass(frozen=True)
class Archive:
    """A zip or tar archive of such a folder, unpacked below `root`."""

    file: Path
    root: Path

    def find(self) -> Iterator[Found]:
        yield from find_in_folder(archive.unpack(self.file, self.root / "images"), relative_to=self.root)


@dataclass(frozen=True)
class Table:
    """Files named by a table, relative to it; a column may say which belong together."""

    file: Path
    group: str | None

    @property
    def root(self) -> Path:
        return self.file.parent

    def find(self) -> Iterator[Found]:
        first: dict[str, str] = {}
        for row in sorted(table.read_table(self.file, group=self.group), key=lambda r: r.path):
            split, problem = SPLIT_NAMES.get(row.split.lower()), ""
            if row.split and split is None:
                raise SettingsError(f"data.root={self.file}: split {row.split!r} of {row.path} is none of "
                                    f"{', '.join(SPLIT_NAMES)}, or empty")  # fmt: skip
            if not row.path:
                problem = "a row without a path"
            elif row.path in first:
                problem = "listed twice" if first[row.path] == row.label else "listed under two labels"
            elif not row.label and split not in ("test", UNLABELLED):
                problem = "no label"
            first.setdefault(row.path, row.label)
            split = split if row.label else UNLABELLED
            yield Found(row.path, row.label if split != UNLABELLED else "", split, row.group, problem)


@dataclass(frozen=True)
class Torchvision:
    """One of torchvision's datasets, kept below `root`; one that comes as arrays is written out there, once."""

    name: str
    root: Path

    def find(self) -> Iterator[Found]:
        for file, label, split in torchvision_set.load_set(self.name, self.root):
            yield Found(file.relative_to(self.root).as_posix(), label, split or None)


def open_source(data: Data, *, out: Path) -> Source:
    """The source that `data` names; one that makes files writes them below `out`."""
    root = from_checkout(data.root or "")
    match data.name:
        case "digits":
            return Digits(out)
        case "csv":
            return Table(root, data.group)
        case "torchvision":
            return Torchvision(data.dataset or "", root)
        case "folder":
            return Archive(root, out) if archive.is_archive(root) and root.is_file() else Folder(root)


def typed_root(data: Data) -> str | None:
    """The folder that paths are relative to, as it can be written down: None where the images lie in the artifact."""
    if data.root is None or archive.is_archive(Path(data.root)):
        return None
    return str(Path(data.root).parent) if data.name == "csv" else data.root
