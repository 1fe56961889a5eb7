"""Images in shards: tar files, and beside them an index that says where in them each image lies.

An image is named by a path through its shard, such as `photos/00000.tar/cats/01.jpg`. It is read from there in one
piece, in whatever order, by any number of threads and processes. The index, `index.tsv`, is text sorted by path, so
that a path is found by bisection: the file is mapped, and takes no memory of its own, however long it is.
"""

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.files import file_state
from pipeline.settings import SettingsError

INDEX = "index.tsv"
SUFFIX = ".tar"
COLUMNS = ("path", "offset", "size", "label", "split")
"""The columns of the index. There may be one more: a group, under a name of its own."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard, and what the index says of it."""

    path: str
    """Relative to the folder of the index, through the shard."""
    offset: int
    size: int
    """In bytes."""
    label: str = ""
    """Empty if it has none: then the file is no sample, unless its split is `unlabelled`."""
    split: str = ""
    """Empty if none is given."""
    group: str = ""

    @property
    def shard(self) -> str:
        """The tar file, relative to the folder of the index."""
        return self.path[: self.path.index(f"{SUFFIX}/") + len(SUFFIX)]

    @property
    def place(self) -> tuple[str, int, int]:
        """Where it is: its path, offset and size."""
        return self.path, self.offset, self.size

    @property
    def name(self) -> str:
        """Its path within the shard."""
        return self.path[len(self.shard) + 1 :]


class ShardError(OSError):
    """A shard or its index is not what it should be. `strerror` says what is wrong and what to do."""

    def __init__(self, file: Path, problem: str) -> None:
        super().__init__(errno.EIO, problem, str(file))


def shard_of(path: str) -> str | None:
    """The shard that a path leads through; None for the path of a file of its own."""
    at = path.find(f"{SUFFIX}/")
    while at >= 0:
        shard = path[: at + len(SUFFIX)]
        if os.path.isfile(shard):  # noqa: PTH113 (strings, because there may be millions: pathlib is ten times slower)
            return shard
        at = path.find(f"{SUFFIX}/", at + 1)
    return None


def find_member(path: str, shard: str) -> Member:
    """Look up where a path through `shard` leads. Raises ShardError, also where there is no index."""
    folder = _folder_of_index(shard)
    file = f"{folder}{INDEX}"
    if (state := file_state(file)) == "gone":
        _folder_of_index.cache_clear()
        raise ShardError(Path(shard), f"its {INDEX} is gone: `unfreeze shards index {folder}`")
    found = _look_up(file, state, path[len(folder) :])
    if found is None:
        raise ShardError(Path(path), f"{INDEX} names no such file in the shard")
    return found


@lru_cache(maxsize=2**16)
def _folder_of_index(shard: str) -> str:
    """The folder that holds the index of a shard, as the beginning of the shard's path."""
    for above in Path(shard).parents:
        if (above / INDEX).is_file():
            return "" if above == Path() else f"{above}/".replace("//", "/")
    raise ShardError(Path(shard), f"there is no {INDEX} beside this shard: `unfreeze shards index FOLDER`")


def read_member(path: str, shard: str) -> bytes:
    """Read the file that a path through `shard` leads to. Raises ShardError where the shard is too short for it."""
    member = find_member(path, shard)
    descriptor = os.open(shard, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.pread(descriptor, member.size, member.offset)
        while len(content) < member.size and (
            more := os.pread(descriptor, member.size - len(content), member.offset + len(content))
        ):
            content += more  # the system reads 2 GiB at most at once
    finally:
        os.close(descriptor)
    if len(content) < member.size:
        raise ShardError(Path(path), f"the shard ends before it: it is cut off, or not the one of {INDEX}")
    return content


def member_state(path: str, shard: str) -> str:
    """Text that changes when a file in a shard may have: the state of the shard, and where the file is in it."""
    member = find_member(path, shard)
    return f"{file_state(shard, of_this_copy=True)} {member.offset} {member.size}"


def read_index(folder: Path) -> Iterator[Member]:
    """Yield all members, in the order of their paths. Raises SettingsError if the index is damaged or not there."""
    group_column(folder)
    file, before = folder / INDEX, b""
    with file.open("rb") as lines:
        next(lines)
        for number, line in enumerate(lines, 2):
            key = line.partition(b"\t")[0]
            if (member := _parse(line)) is None or key <= before:
                raise SettingsError(f"{file} is damaged in line {number}: {_again(str(file))}")
            before = key
            yield member


def group_column(folder: Path) -> str | None:
    """The name of the column of groups; None if there is none. Raises SettingsError for what is no index."""
    if not (folder / INDEX).is_file():
        raise SettingsError(f"data.root={folder} has no {INDEX}: write it with `unfreeze shards index {folder}`")
    with (folder / INDEX).open("rb") as lines:
        names = lines.readline().decode(errors="surrogateescape").rstrip("\n").split("\t")
    if tuple(names[:5]) != COLUMNS or len(names) > 6:
        raise SettingsError(f"{folder / INDEX} is damaged in line 1: {_again(str(folder / INDEX))}")
    return names[5] if len(names) == 6 else None


def index_lines(members: Iterable[Member], group: str | None) -> Iterator[bytes]:
    """Yield the lines of an index of these members, which must be sorted by the bytes of their paths."""
    yield _line(*COLUMNS, *([group] if group else []))
    for m in members:
        yield _line(m.path, m.offset, m.size, m.label, m.split, *([m.group] if group else []))


def _line(*cells: object) -> bytes:
    return ("\t".join(map(str, cells)) + "\n").encode(errors="surrogateescape")


def _parse(line: bytes) -> Member | None:
    """The member of a line of the index; None if it is damaged."""
    cells = line.decode(errors="surrogateescape").split("\t")
    if len(cells) not in (5, 6) or not cells[-1].endswith("\n") or f"{SUFFIX}/" not in cells[0]:
        return None
    cells[-1] = cells[-1][:-1]
    if not (cells[1].isdecimal() and cells[2].isdecimal()):
        return None
    return Member(cells[0], int(cells[1]), int(cells[2]), *cells[3:])


@lru_cache(maxsize=256)
def _look_up(file: str, state: str, path: str) -> Member | None:
    """Find a path in an index by bisection."""
    lines, key = _mapped(file, state), os.fsencode(path) + b"\t"
    low, high = lines.find(b"\n") + 1, len(lines)
    while low < high:
        start = lines.rfind(b"\n", low - 1, (low + high) // 2) + 1
        end = lines.find(b"\n", start) + 1 or len(lines)
        line = lines[start:end]
        if line.startswith(key):
            if (found := _parse(line)) is None:
                raise ShardError(Path(file), f"it is damaged near byte {start}: {_again(file)}")
            return found
        if line < key:
            low = end
        else:
            high = start
    return None


@lru_cache(maxsize=8)
def _mapped(file: str, state: str) -> mmap.mmap:
    """An index in the `state` that it has now: another one is mapped again."""
    del state
    with open(file, "rb") as content:  # noqa: PTH123
        try:
            return mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ShardError(Path(file), f"it is empty: {_again(file)}") from None


def _again(index: str) -> str:
    """What to do with a damaged index."""
    folder = Path(index).parent
    return f"remove it and type `unfreeze shards index {folder}`, or write the shards again"
