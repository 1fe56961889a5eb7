"""Where images come from. Every source ends as files below one folder.

To add a source, write a subclass of `Source` and add a line to `SOURCES`; its values go into `conf/data/`. Settings are
checked and fingerprinted at every `dvc repro`, so this module imports neither numpy nor PIL nor torch at its top.
"""

import difflib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pipeline.data import archive, shards, table, torchvision_set
from pipeline.data.dropped import check_drop
from pipeline.data.folder import find_in_folder, remark_on_any, unusable_name
from pipeline.data.found import SPLIT_NAMES, UNLABELLED, FoundFile
from pipeline.data.shard_index import find_shards, read_checked
from pipeline.paths import from_checkout
from pipeline.settings import DataSource, SettingsError, Unpack

_SETTINGS = ("root", "dataset", "group")
"""Settings of `data` that are only for some sources, and null for all others."""


@dataclass(frozen=True)
class Source(ABC):
    """A set of image files below one folder."""

    needs: ClassVar[Mapping[str, str]] = {}
    """Which of `_SETTINGS` must be given, each with what it is and an example."""
    accepts: ClassVar[frozenset[str]] = frozenset()
    """Which of `_SETTINGS` may be given in addition."""

    root: Path
    """The folder that the paths of `find` are relative to."""
    notes: list[str] = field(default_factory=list, kw_only=True, compare=False)
    """How the source was understood, where a person may have meant something else; filled by `find`."""

    @classmethod
    @abstractmethod
    def open(cls, data: DataSource, out: Path) -> "Source":
        """Open the source that `data` describes. A source that writes files puts them below `out`."""

    @abstractmethod
    def find(self) -> Iterator[FoundFile]:
        """Yield every file of the source in a fixed order. Raises SettingsError."""

    @classmethod
    def files(cls, data: DataSource) -> Iterator[tuple[str, str]]:
        """Yield (name, path) of every file that the images come from, in a fixed order. Raises SettingsError.

        This runs at every `dvc repro` and there may be a million files, so use strings: pathlib is ten times slower.
        """
        yield ".", str(_root(data))

    @classmethod
    def typed_root(cls, data: DataSource) -> str | None:
        """`root` as the user typed it; None if the images are written below `out`."""
        return data.root


@dataclass(frozen=True)
class Digits(Source):
    """The 1,797 handwritten digits that scikit-learn carries (8x8, 17 gray levels), written as PNG files.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (its test part).
    """

    @classmethod
    def open(cls, data: DataSource, out: Path) -> Source:
        del data
        return cls(out)

    def find(self) -> Iterator[FoundFile]:
        import numpy as np
        from PIL import Image
        from sklearn.datasets import load_digits

        digits = load_digits()
        for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = f"images/{label}/{i:04d}.png"
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(file)
            yield FoundFile(path, str(label), None)


@dataclass(frozen=True)
class Folder(Source):
    """One folder per class, `root/<class>/*`, or the same below `train/`, `valid/` (or `val/`) and `test/`.

    `data.root` may also be a zip or tar archive of it.
    """

    needs: ClassVar[Mapping[str, str]] = {"root": "the folder of images (data.root=path/to/images)"}

    @classmethod
    def open(cls, data: DataSource, out: Path) -> Source:
        root = _root(data)
        return Archive(out, root, data.unpack) if _is_archive(root) else Folder(root)

    def find(self) -> Iterator[FoundFile]:
        _check_is_folder(self.root, str(self.root))
        yield from find_in_folder(self.root, relative_to=self.root, notes=self.notes)

    @classmethod
    def files(cls, data: DataSource) -> Iterator[tuple[str, str]]:
        root = _root(data)
        if _is_archive(root):
            yield ".", str(root)
            return
        _check_is_folder(root, str(data.root))
        found = find_in_folder(root, relative_to=root)
        yield from ((f.path, os.path.join(root, f.path)) for f in found)  # noqa: PTH118

    @classmethod
    def typed_root(cls, data: DataSource) -> str | None:
        return None if _is_archive(_root(data)) else data.root


@dataclass(frozen=True)
class Archive(Folder):
    """A zip or tar archive of a folder of images, unpacked below `root`."""

    file: Path
    limits: Unpack

    def find(self) -> Iterator[FoundFile]:
        images = archive.unpack(self.file, self.root / "images", self.limits)
        yield from find_in_folder(images, relative_to=self.root, notes=self.notes)


@dataclass(frozen=True)
class Table(Source):
    """A table with a row per image. Paths are relative to the table; one column may name groups."""

    needs: ClassVar[Mapping[str, str]] = {"root": "the table of images (data.root=path/to/table.csv)"}
    accepts: ClassVar[frozenset[str]] = frozenset({"group"})

    file: Path
    group: str | None

    @classmethod
    def open(cls, data: DataSource, out: Path) -> Source:
        del out
        file = _root(data)
        return cls(file.parent, file, data.group)

    def find(self) -> Iterator[FoundFile]:
        first: dict[str, str] = {}
        for row in sorted(table.read_table(self.file, group=self.group), key=lambda r: r.path):
            split, problem = SPLIT_NAMES.get(row.split.lower()), ""
            if row.split and split is None:
                raise SettingsError(
                    f"data.root={self.file}: split {row.split!r} of {row.path} ({row.place}) must be empty or one of "
                    f"{', '.join(SPLIT_NAMES)}"
                )
            if not row.path:
                problem = f"no path: {row.place} of {self.file.name}"
            elif row.path in first:
                problem = "listed twice" if first[row.path] == row.label else "listed under two labels"
            elif not row.label and split not in ("test", UNLABELLED):
                problem = "no label"
            else:
                problem = self._missing(row)
            first.setdefault(row.path, row.label)
            split = split if row.label else UNLABELLED
            yield FoundFile(row.path, row.label if split != UNLABELLED else "", split, row.group, problem)

    def _missing(self, row: table.Row) -> str:
        """Why the row's file is not there; empty if it is."""
        try:
            os.lstat(os.path.join(self.root, row.path))  # noqa: PTH118
        except (FileNotFoundError, NotADirectoryError):
            how = ", with back-slashes where slashes must be" if "\\" in row.path else ""
            return f"no such file: {row.place} of {self.file.name}{how}"
        except OSError:
            return ""  # the decoder says why it cannot be read
        return ""

    @classmethod
    def files(cls, data: DataSource) -> Iterator[tuple[str, str]]:
        file = _root(data)
        yield ".", str(file)
        rows = table.read_table(file, group=data.group)
        yield from ((f"../{row.path}", os.path.join(file.parent, row.path)) for row in rows)  # noqa: PTH118

    @classmethod
    def typed_root(cls, data: DataSource) -> str | None:
        return str(Path(data.root or "").parent)


@dataclass(frozen=True)
class Shards(Source):
    """A folder of tar files with an index, as `unfreeze shards` makes them. One column of it may name groups."""

    needs: ClassVar[Mapping[str, str]] = {"root": "the folder of shards (data.root=path/to/shards)"}
    accepts: ClassVar[frozenset[str]] = frozenset({"group"})

    group: str | None

    @classmethod
    def open(cls, data: DataSource, out: Path) -> Source:
        del out
        return cls(_checked_shards(data), data.group)

    def find(self) -> Iterator[FoundFile]:
        unused = Counter[str]()
        for m in read_checked(self.root):
            if m.label or m.split == UNLABELLED:
                yield FoundFile(m.path, m.label, m.split or None, m.group if self.group else "", unusable_name(m.path))
            else:
                remark = remark_on_any(m.path) or "not in a class folder"
                unused[remark] += 1
                yield FoundFile(m.path, "", None, "", remark, ignored=True)
        self.notes.extend(f"not used of what is in the shards: {count} ({remark})" for remark, count in unused.items())

    @classmethod
    def files(cls, data: DataSource) -> Iterator[tuple[str, str]]:
        root = _checked_shards(data)
        yield from ((name, os.path.join(root, name)) for name in (shards.INDEX, *find_shards(root)))  # noqa: PTH118


@dataclass(frozen=True)
class Torchvision(Source):
    """One of torchvision's datasets, kept below `root`. If it comes as arrays, they are written there as PNG files."""

    needs: ClassVar[Mapping[str, str]] = {
        "root": "the folder that datasets are kept in (data.root=datasets)",
        "dataset": "its name (data.dataset=CIFAR10)",
    }

    dataset: str

    @classmethod
    def open(cls, data: DataSource, out: Path) -> Source:
        del out
        return cls(_root(data), data.dataset or "")

    def find(self) -> Iterator[FoundFile]:
        for file, label, split in torchvision_set.load_set(self.dataset, self.root):
            yield FoundFile(file.relative_to(self.root).as_posix(), label, split or None)

    @classmethod
    def files(cls, data: DataSource) -> Iterator[tuple[str, str]]:
        root = str(_root(data))
        for here, folders, names in os.walk(root):
            folders.sort()
            below = "" if here == root else f"{os.path.relpath(here, root)}/"
            yield from ((below + name, os.path.join(here, name)) for name in sorted(names))  # noqa: PTH118


SOURCES: dict[str, type[Source]] = {
    "digits": Digits,
    "folder": Folder,
    "csv": Table,
    "shards": Shards,
    "torchvision": Torchvision,
}
"""The sources by `data.name`."""


def check_source(data: DataSource) -> None:
    """Raise SettingsError if a setting that the source needs is missing, or if one is given that has no effect.

    Looks at settings only, not at the disk.
    """
    source = _find_source(data)
    for key, what in source.needs.items():
        if not getattr(data, key):
            raise SettingsError(f"data.{key} is missing: data={data.name} needs {what}")
    for key in _SETTINGS:
        value = getattr(data, key)
        if value is not None and not _takes(source, key):
            other = next(name for name, other in SOURCES.items() if _takes(other, key))
            raise SettingsError(f"data.{key}={value} has no effect with data={data.name}; choose data={other}")
    check_drop(data)


def open_source(data: DataSource, *, out: Path) -> Source:
    """Open the source that `data` describes. A source that writes files (digits, archives) puts them below `out`."""
    return _find_source(data).open(data, out)


def source_files(data: DataSource) -> Iterator[tuple[str, str]]:
    """Yield (name, path) of every file that the images come from, in a fixed order. Raises SettingsError.

    A name is relative to the source, and the same wherever that lies.
    """
    return _find_source(data).files(data)


def source_root(data: DataSource) -> Path:
    """The folder, table or archive that `data.root` names."""
    return _root(data)


def typed_root(data: DataSource) -> str | None:
    """The source's root as the user typed it, for `source.json`; None if the images are in the artifact itself."""
    return _find_source(data).typed_root(data)


def _find_source(data: DataSource) -> type[Source]:
    if data.name not in SOURCES:
        near = difflib.get_close_matches(data.name, SOURCES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SettingsError(f"data.name={data.name} must be one of {', '.join(SOURCES)}{hint}")
    return SOURCES[data.name]


def _takes(source: type[Source], key: str) -> bool:
    return key in source.needs or key in source.accepts


def _root(data: DataSource) -> Path:
    return from_checkout(data.root or "")


def _is_archive(root: Path) -> bool:
    return archive.is_archive(root) and root.is_file()


def _checked_shards(data: DataSource) -> Path:
    """The folder of shards, whose index has the column of groups that is asked for."""
    root = _root(data)
    _check_is_folder(root, str(data.root))
    column = shards.group_column(root)
    if data.group and data.group != column:
        there = f"its column of groups is {column!r}" if column else "it has no column of groups"
        raise SettingsError(
            f"data.root={data.root}: {shards.INDEX} has no column {data.group!r}; {there}. `unfreeze shards write "
            f"TABLE SHARDS --group {data.group}` writes one"
        )
    return root


def _check_is_folder(root: Path, typed: str) -> None:
    if root.is_dir():
        return
    hint = "; a table of images is read with data=csv" if root.suffix.lower() in table.SUFFIXES else ""
    raise SettingsError(
        f"data.root={typed} is not a folder ({root.resolve()}), nor an archive of one; give the folder whose "
        f"sub-folders are the classes{hint}"
    )
