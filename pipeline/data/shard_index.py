"""The index of shards: made from the headers of tar files, whoever wrote them, and compared with them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePosixPath

from pipeline.data.archive_entries import Names
from pipeline.data.folder import remark_on_any
from pipeline.data.found import SPLIT_NAMES, UNLABELLED
from pipeline.data.shards import INDEX, SUFFIX, Member, index_lines, read_index
from pipeline.data.tar_reader import find_files
from pipeline.files import atomic_file
from pipeline.settings import SettingsError
from pipeline.workspace import Bar

_LISTED = 5
_UNLABELLED_TEST = "test"


def find_shards(folder: Path) -> list[str]:
    """The tar files below a folder, in the order of their members' paths. Raises SettingsError if there are none."""
    there = (p for p in folder.rglob(f"*{SUFFIX}") if p.is_file() and not p.name.startswith("."))
    found = sorted(there, key=lambda p: f"{p.as_posix()}/".encode(errors="surrogateescape"))
    if not found:
        packed = next((p.name for p in sorted(folder.rglob(f"*{SUFFIX}.*"))), "")
        also = (
            f" ({packed} is packed: images cannot be read from the middle of it; unpack it to .tar)" if packed else ""
        )
        raise SettingsError(f"{folder} holds no shards, which are files named *{SUFFIX}{also}")
    return [p.relative_to(folder).as_posix() for p in found]


def members_of(folder: Path, shard: str) -> list[Member]:
    """The files in a shard, sorted by path, without labels.

    Raises SettingsError for an archive that is damaged, is packed, or holds links.
    """
    names = Names()
    try:
        found = [
            Member(f"{shard}/{names.add(name, is_file=True)}", offset, size)
            for name, offset, size in find_files(folder / shard)
        ]
    except (ValueError, OSError, OverflowError) as error:  # of seek too: headers may claim any size
        raise SettingsError(f"{folder / shard} cannot be used as a shard: {error}") from None
    return sorted(found, key=lambda m: m.path.encode(errors="surrogateescape"))


def write_index(folder: Path, bar: Bar) -> int:
    """Write the index of the shards below `folder`; returns the number of members.

    Classes and splits follow from the names: `<class>/*`, or `<split>/<class>/*`, in a shard or in a folder of shards;
    one outer folder around all is skipped. `bar` moves by two for each shard.
    """
    shards, folders, count = find_shards(folder), set[tuple[str, ...]](), 0
    for shard in shards:
        folders.update(_place(m.path)[:-1] for m in members_of(folder, shard) if not remark_on_any(m.path))
        bar.advance(note=shard)
    layout = Layout.of(folders, folder)

    def labelled() -> Iterator[Member]:
        nonlocal count
        for shard in shards:
            for member in members_of(folder, shard):
                label, split = ("", "") if remark_on_any(member.path) else layout.judge(_place(member.path))
                count += 1
                yield replace(member, label=label, split=split)
            bar.advance(note=shard)

    save_index(folder, labelled(), group=None)
    return count


def save_index(folder: Path, members: Iterable[Member], *, group: str | None) -> None:
    """Write `index.tsv` of members in the order of their paths."""
    with atomic_file(folder / INDEX) as file:
        file.writelines(index_lines(members, group))


def read_checked(folder: Path) -> Iterator[Member]:
    """Yield the members of an index, each shard's after its headers were compared with it. Raises SettingsError."""
    there, seen = set(find_shards(folder)), set[str]()
    for shard, group in groupby(read_index(folder), key=lambda m: m.shard):
        members = list(group)
        if shard not in there:
            raise SettingsError(f"{folder / shard} is not there, and {INDEX} names {len(members)} images in it: "
                                "put it back")  # fmt: skip
        found = members_of(folder, shard)
        if [m.place for m in found] != [m.place for m in members]:
            raise SettingsError(
                f"{folder / shard} is not the shard that {INDEX} was made of: put the old one back, or remove {INDEX} "
                f"and type `unfreeze shards index {folder}`"
            )
        seen.add(shard)
        yield from members
    if new := sorted(there - seen):
        raise SettingsError(
            f"{folder} holds shards that {INDEX} does not name: {', '.join(new[:_LISTED])}: remove them, or remove "
            f"{INDEX} and type `unfreeze shards index {folder}`"
        )


def _place(path: str) -> tuple[str, ...]:
    """The parts of a member's path, without the shard: what is in several shards is one tree of folders."""
    return tuple(part for part in PurePosixPath(path).parts if not part.endswith(SUFFIX))


@dataclass(frozen=True)
class Layout:
    """What the folders of a tree stand for."""

    outer: int
    """How many folders are around all."""
    has_splits: bool
    unlabelled: frozenset[str]
    """Folders of splits whose images have no label."""

    @classmethod
    def of(cls, folders: set[tuple[str, ...]], root: Path) -> "Layout":
        """Understand the folders that hold files. Raises SettingsError where they may mean several things."""
        outer = _count_outer(folders)
        inner = [parts[outer:] for parts in folders]
        tops = {parts[0]: SPLIT_NAMES.get(parts[0].lower()) for parts in inner if parts}
        if "train" not in tops.values():
            _check_classes(inner, root)
            return cls(outer, has_splits=False, unlabelled=frozenset())
        if others := sorted(name for name, split in tops.items() if split is None):
            raise SettingsError(
                f"{root} has train/ beside {', '.join(others[:_LISTED])}: put the classes inside the split folders, or "
                "name a class that is called train differently"
            )
        with_classes = {parts[0] for parts in inner if len(parts) > 1}
        loose = {n for n, s in tops.items() if s == UNLABELLED or (s == _UNLABELLED_TEST and n not in with_classes)}
        return cls(outer, has_splits=True, unlabelled=frozenset(loose))

    def judge(self, place: Sequence[str]) -> tuple[str, str]:
        """The label and the split of a file; no label if it is in no class folder."""
        *folders, _ = place[self.outer :]
        if not self.has_splits:
            return (folders[0] if folders else ""), ""
        if not folders:
            return "", ""
        split = SPLIT_NAMES[folders[0].lower()]
        if folders[0] in self.unlabelled:
            return "", UNLABELLED
        return (folders[1], split) if len(folders) > 1 else ("", "")


def _count_outer(folders: set[tuple[str, ...]]) -> int:
    """How many folders are around all others, and are neither a split nor the only class."""
    count = 0
    while (
        len({parts[count : count + 1] for parts in folders}) == 1
        and all(len(parts) > count + 1 for parts in folders)
        and next(iter(folders))[count].lower() not in SPLIT_NAMES
    ):
        count += 1
    return count


def _check_classes(inner: Sequence[Sequence[str]], root: Path) -> None:
    """Refuse splits without train, and splits inside the class folders."""
    given = sorted({parts[0] for parts in inner if parts and parts[0].lower() in SPLIT_NAMES})
    if given and all(not parts or parts[0] in given for parts in inner):
        raise SettingsError(f"{root} has {', '.join(f'{name}/' for name in given)} but no train/: add shards with "
                            "train/<class>/*.jpg")  # fmt: skip
    parted = sorted("/".join(x[:2]) for x in inner if len(x) > 1 and SPLIT_NAMES.get(x[1].lower()) == "train")
    if parted:
        raise SettingsError(
            f"{root} has its splits inside the class folders ({parted[0]}/): unpack the shards into a "
            "folder, and type `unfreeze shards write FOLDER SHARDS`, which keeps the splits"
        )
