"""A folder of class folders: every file below it is found exactly once, image or not."""

import mimetypes
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.found import SPLIT_NAMES, SPLITS, UNLABELLED, FoundFile
from pipeline.data.near_names import find_near_names
from pipeline.settings import SettingsError

_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini", "ehthumbs.db", "Icon\r"}
_NAMED_LIKE_A_CALIBRE = re.compile(r"\.\d")
"""Class folders such as `.22` are not hidden, though they begin with a dot."""
_LISTED = 5


def find_in_folder(root: Path, *, relative_to: Path, notes: list[str] | None = None) -> Iterator[FoundFile]:
    """Yield every file below `root`, by split and class folder.

    How the layout was understood is added to `notes`, where a person may have meant something else. Raises
    SettingsError for an ambiguous layout.
    """
    walk, said = _Walk(root, relative_to), [] if notes is None else notes
    if splits := _split_folders(root):
        yield from _find_in_splits(walk, splits, said)
    elif parted := _parted_classes(root, said):
        yield from _find_in_parted(walk, parted)
    else:
        yield from walk.classes(root, None)
    said.extend(walk.remarks())


def _find_in_splits(walk: "_Walk", splits: dict[str, Path], notes: list[str]) -> Iterator[FoundFile]:
    """`root/train/<class>/*`, and the same for other splits. Where no class can be meant, images are unlabelled."""
    for split in (*SPLITS, UNLABELLED):
        if split not in splits:
            continue
        folder = splits[split]
        loose = split == UNLABELLED or (split == "test" and not any(p.is_dir() for p in _entries(folder)))
        if loose:
            yield from walk.files(folder, "", UNLABELLED)
        elif split == "test" and (unknown := _unknown_folder(splits)):
            notes.append(
                f"{folder.name}/{unknown.name}/ is no class of {splits['train'].name}/: its images are predicted, and "
                f"used for nothing else, as in {UNLABELLED}/"
            )
            yield from walk.strays(folder, below=[unknown.name])
            yield from walk.files(unknown, "", UNLABELLED)
        else:
            yield from walk.classes(folder, split)
    yield from walk.strays(walk.root, below=[p.name for p in splits.values()])


def _unknown_folder(splits: dict[str, Path]) -> Path | None:
    """The only folder below `test/`, if its name is not that of a class, nor near one, as Keras wants it."""
    folders = _class_folders(splits["test"])
    known = {p.name for split in ("train", "valid") if split in splits for p in _class_folders(splits[split])}
    if (
        len(folders) != 1
        or folders[0].name in known
        or find_near_names({folders[0].name, *known}) != find_near_names(known)
    ):
        return None
    return folders[0]


def _parted_classes(root: Path, notes: list[str]) -> dict[Path, dict[str, Path]]:
    """The split folders of each class folder, if all are divided in this way (`<class>/train/*`); otherwise empty."""
    classes = {p: _own_splits(p) for p in _class_folders(root)}
    parted = {p: splits for p, splits in classes.items() if "train" in splits}
    if not parted:
        return {}
    shown = ", ".join(f"{p.name}/{inner.name}/" for p, splits in parted.items() for inner in splits.values())
    if len(classes) == 1 and any(_class_folders(p) for p in parted[next(iter(parted))].values()):
        [only] = parted
        raise SettingsError(f"data.root={root} has its splits in {only.name}/: give data.root={only}")
    if all(classes.values()):
        notes.append(f"the splits are inside the class folders and are used as given: {shown[:200]}")
        return classes
    others = ", ".join(f"{p.name}/" for p, splits in classes.items() if not splits)
    notes.append(
        f"{shown[:200]} are taken for parts of their classes, not for splits, because {others[:200]} is not divided in "
        "this way: move them to train/<class>/ and so on if they are splits"
    )
    return {}


def _own_splits(folder: Path) -> dict[str, Path]:
    """The folders of a class folder by split; empty if there is an image or a folder of another name in it."""
    found: dict[str, Path] = {}
    for p in _entries(folder):
        split = SPLIT_NAMES.get(p.name.lower())
        if p.is_dir() and split is not None and split not in found:
            found[split] = p
        elif p.is_dir() or _is_image_name(p.name):
            return {}
    return found


def _find_in_parted(walk: "_Walk", classes: dict[Path, dict[str, Path]]) -> Iterator[FoundFile]:
    yield from walk.strays(walk.root, below=[p.name for p in classes])
    for folder, splits in classes.items():
        yield from walk.strays(folder, below=[p.name for p in splits.values()])
        for split, inner in splits.items():
            yield from walk.files(inner, "" if split == UNLABELLED else folder.name, split)


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
            "or remove these. If train is a class like the others, rename its folder (train_, for example): the name "
            "stands for a split"
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
    hidden: list[str] = field(default_factory=list)
    """Folders that were passed over."""
    dotted: list[str] = field(default_factory=list)
    """Classes whose names begin with a dot."""
    stray_images: list[str] = field(default_factory=list)
    """Images that are in no class folder."""

    def classes(self, folder: Path, split: str | None) -> Iterator[FoundFile]:
        classes = _class_folders(folder)
        yield from self.strays(folder, below=[p.name for p in classes])
        for entry in classes:
            if entry.name.startswith("."):
                self.dotted.append(self._relative(entry))
            yield from self._class_folder(entry, split)

    def remarks(self) -> list[str]:
        """What was passed over or may not have been meant, a sentence each."""
        notes = []
        if self.dotted:
            notes.append(f"{_shorten(self.dotted)}: taken for classes, though their names begin with a dot")
        if self.hidden:
            notes.append(f"passed over: {_shorten(self.hidden)}; rename a folder if it is a class")
        if self.stray_images:
            count = len(self.stray_images)
            notes.append(f"{count} images are in no class folder and not used: {_shorten(self.stray_images)}")
        return notes

    def files(self, folder: Path, label: str, split: str | None) -> Iterator[FoundFile]:
        """Yield every file below `folder` in a fixed order. Links to folders are not followed: they may be circular."""
        failed: list[OSError] = []
        for here, folders, names in os.walk(folder, onerror=failed.append):
            below, inner = f"{self._relative(Path(here))}/", set(folders)
            links = {name for name in folders if (Path(here) / name).is_symlink()}
            for name in sorted(folders + names):
                if remark := remark_on(name):
                    if name in inner:
                        self.hidden.append(f"{below}{name}/ ({remark})")
                    yield FoundFile(below + name, label, split, "", remark, ignored=True)
                elif name in links:
                    yield FoundFile(below + name, label, split, "", "a link to a folder, which is not followed")
                elif name not in inner:
                    yield FoundFile(below + name, label, split, "", unusable_name(name))
            folders[:] = sorted(f for f in folders if not remark_on(f) and f not in links)
        for error in failed:
            yield self._found(Path(error.filename), label, split, f"a folder that cannot be read: {error.strerror}")

    def strays(self, folder: Path, *, below: list[str]) -> Iterator[FoundFile]:
        """Yield what is in a folder of folders, but is not one of the folders `below`."""
        for entry in sorted(folder.iterdir()):
            if entry.name not in below:
                remark = remark_on(entry.name)
                if remark and entry.is_dir():
                    self.hidden.append(f"{self._relative(entry)}/ ({remark})")
                elif not remark and _is_image_name(entry.name):
                    self.stray_images.append(self._relative(entry))
                remark = remark or "not in a class folder"
                yield self._found(entry, "", None, remark, ignored=True)

    def _class_folder(self, folder: Path, split: str | None) -> Iterator[FoundFile]:
        problem = unusable_name(folder.name)
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
    return sorted(p for p in folder.iterdir() if not remark_on(p.name))


def _class_folders(folder: Path) -> list[Path]:
    dotted = (p for p in folder.iterdir() if _NAMED_LIKE_A_CALIBRE.match(p.name))
    return sorted(p for p in (*_entries(folder), *dotted) if p.is_dir())


def _is_image_name(name: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith("image/")


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def remark_on(name: str) -> str:
    """Why a file of this name is ignored; empty if it is not."""
    if name in _LITTER:
        return "left behind by the operating system"
    return "hidden" if name.startswith(".") else ""


def remark_on_any(path: str) -> str:
    """Why a file under this path is ignored, because of its name or a folder's; empty if it is not."""
    return next((remark for name in path.split("/") if (remark := remark_on(name))), "")


def unusable_name(name: str) -> str:
    """Why a file of this name cannot be used; empty if it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    return ""
