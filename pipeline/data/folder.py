"""A folder of class folders: every file below it is found exactly once, image or not."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.found import SPLIT_NAMES, SPLITS, UNLABELLED, FoundFile
from pipeline.settings import SettingsError

_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini", "ehthumbs.db", "Icon\r"}


def find_in_folder(root: Path, *, relative_to: Path) -> Iterator[FoundFile]:
    """Yield every file below `root`, by split and class folder. Raises SettingsError for an ambiguous layout."""
    walk = _Walk(root, relative_to)
    splits = _split_folders(root)
    if not splits:
        yield from walk.classes(root, None)
        return
    for split in (*SPLITS, UNLABELLED):
        if split in splits:
            folder = splits[split]
            loose = split == UNLABELLED or (split == "test" and not any(p.is_dir() for p in _entries(folder)))
            yield from walk.files(folder, "", UNLABELLED) if loose else walk.classes(folder, split)
    yield from walk.strays(root, below=[p.name for p in splits.values()])


def find_below(folder: Path) -> Iterator[FoundFile]:
    """Yield every file below `folder`, however its folders are named, in a fixed order; the paths start there."""
    return _Walk(folder, folder).files(folder, "", None)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders `train/`, `valid/` and so on, by split; empty if `root` holds class folders."""
    folders = [p for p in _entries(root) if p.is_dir()]
    found: dict[str, Path] = {}
    for p in folders:
        split = SPLIT_NAMES.get(p.name.lower())
        if split in found:
            raise SettingsError(f"data.root={root} has two folders for {split}, {found[split].name}/ and {p.name}/")
        if split is not None:
            found[split] = p
    others = [p.name for p in folders if p not in found.values()]
    if "train" in found and others:
        raise SettingsError(
            f"data.root={root} has train/ beside {', '.join(others[:5])}: put the classes inside the split folders, "
            "or remove these"
        )
    if found and not others and "train" not in found:
        raise SettingsError(
            f"data.root={root} has {', '.join(f'{p.name}/' for p in found.values())} but no train/: add "
            "train/<class>/*.jpg, or give a folder whose sub-folders are the classes"
        )
    return found if "train" in found else {}


@dataclass(frozen=True)
class _Walk:
    root: Path
    relative_to: Path

    def classes(self, folder: Path, split: str | None) -> Iterator[FoundFile]:
        yield from self.strays(folder, below=[p.name for p in _entries(folder) if p.is_dir()])
        for entry in _entries(folder):
            if entry.is_dir():
                yield from self._class_folder(entry, split)

    def files(self, folder: Path, label: str, split: str | None) -> Iterator[FoundFile]:
        """Yield every file below `folder` in a fixed order. Links to folders are not followed: they may be circular."""
        failed: list[OSError] = []
        for here, folders, names in os.walk(folder, onerror=failed.append):
            below, inner = f"{self._relative(Path(here))}/", set(folders)
            links = {name for name in folders if (Path(here) / name).is_symlink()}
            for name in sorted(folders + names):
                if remark := _remark(name):
                    yield FoundFile(below + name, label, split, "", remark, ignored=True)
                elif name in links:
                    yield FoundFile(below + name, label, split, "", "a link to a folder, which is not followed")
                elif name not in inner:
                    yield FoundFile(below + name, label, split, "", _unusable_name(name))
            folders[:] = sorted(f for f in folders if not _remark(f) and f not in links)
        for error in failed:
            yield self._found(Path(error.filename), label, split, f"a folder that cannot be read: {error.strerror}")

    def strays(self, folder: Path, *, below: list[str]) -> Iterator[FoundFile]:
        """Yield what is in a folder of folders, but is not one of the folders `below`."""
        for entry in sorted(folder.iterdir()):
            if entry.name not in below:
                remark = _remark(entry.name) or "not in a class folder"
                yield self._found(entry, "", None, remark, ignored=True)

    def _class_folder(self, folder: Path, split: str | None) -> Iterator[FoundFile]:
        problem = _unusable_name(folder.name)
        if folder.is_symlink() and self._leads_back(folder):
            problem = "a link that leads back to data.root, which is not followed"
        if problem:
            yield self._found(folder, "", split, problem)
            return
        empty = True
        for found in self.files(folder, folder.name, split):
            empty = False
            yield found
        if empty:
            yield self._found(folder, "", split, "a class folder without files", ignored=True)

    def _leads_back(self, folder: Path) -> bool:
        """Whether a link leads to the root, to a folder above it, or to a folder below it."""
        root, target = self.root.resolve(), folder.resolve()
        return root.is_relative_to(target) or target.is_relative_to(root)

    def _found(self, path: Path, label: str, split: str | None, problem: str, *, ignored: bool = False) -> FoundFile:
        return FoundFile(self._relative(path), label, split, "", problem, ignored)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.relative_to).as_posix()


def _entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not _remark(p.name))


def _remark(name: str) -> str:
    """Why a file of this name is ignored; empty if it is not."""
    if name in _LITTER:
        return "left behind by the operating system"
    return "hidden" if name.startswith(".") else ""


def _unusable_name(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    return ""
