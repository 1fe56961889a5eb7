"""What archives of any kind hold: entries, whose names are checked, and limits on what comes out of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.settings import Unpack

_LONGEST_NAME = 255
"""Bytes in one part of a path: what Linux file systems take."""
_DEEPEST = 64
"""Folders in one another: what walks through folders is recursive."""
_DRIVE = re.compile(r"[A-Za-z]:")
_SMALL_BYTES = 100_000_000
"""Up to this size the ratio is not looked at: a few plain pictures may be packed very well."""


class ArchiveError(ValueError):
    """An archive that is damaged, or holds what is not unpacked. The message says where and what."""


@dataclass(frozen=True)
class Entry:
    """A file or folder in an archive."""

    name: str
    size: int
    """In bytes, as its header claims."""
    content: Iterator[bytes] | None
    """Of a file, in chunks. None for a folder."""


class Names:
    """The names in one archive. Each is checked before anything is written under it."""

    def __init__(self) -> None:
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = set()

    def add(self, name: str, *, is_file: bool) -> PurePosixPath:
        """Check a name and return it as a relative path. Raises ArchiveError for one that cannot be unpacked."""
        path = PurePosixPath(name)
        if problem := _problem(name, path, is_file=is_file) or self._collision(path, is_file=is_file):
            raise ArchiveError(f"its member {name!r} {problem}")
        if is_file:
            self._files.add(path)
        self._folders.update(path.parents if is_file else (path, *path.parents))
        return path

    def _collision(self, path: PurePosixPath, *, is_file: bool) -> str:
        above = next((p for p in (path, *path.parents) if p in self._files), None)
        if above == path:
            return "is in it twice" if is_file else "is a file and a folder"
        if above is not None:
            return f"needs a folder where its member {str(above)!r} is a file"
        return "is a file and a folder" if is_file and path in self._folders else ""


def _problem(name: str, path: PurePosixPath, *, is_file: bool) -> str:
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(name):
        return "reaches outside"
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name):
        return "has a control character in its name"
    if "\\" in name:
        return "has a back-slash in its name"
    if is_file and not path.parts:
        return "has no name"
    if max((len(part.encode(errors="surrogateescape")) for part in path.parts), default=0) > _LONGEST_NAME:
        return f"has a name of more than {_LONGEST_NAME} bytes"
    return f"is more than {_DEEPEST} folders deep" if len(path.parts) > _DEEPEST else ""


@dataclass
class Meter:
    """Counts what comes out of an archive, whatever its headers claim, and stops at the limits."""

    limits: Unpack
    packed_bytes: int
    """The size of the archive itself."""
    num_bytes: int = 0
    num_entries: int = 0

    def count_bytes(self, number: int) -> None:
        """Count unpacked bytes. Raises ArchiveError when they are too many."""
        self.num_bytes += number
        max_gb, max_ratio = self.limits.max_gb, self.limits.max_ratio
        if self.num_bytes > max_gb * 1e9:
            raise ArchiveError(f"it unpacks to more than data.unpack.max_gb={max_gb:g} GB; raise that if it is right")
        if self.num_bytes > max(_SMALL_BYTES, max_ratio * self.packed_bytes):
            raise ArchiveError(
                f"it unpacks to more than data.unpack.max_ratio={max_ratio:g} times its size, as archives do that are "
                "made to fill a disk; raise that if it is right"
            )

    def count_entry(self) -> None:
        """Count a file or folder. Raises ArchiveError when they are too many."""
        self.num_entries += 1
        if self.num_entries > self.limits.max_files:
            raise ArchiveError(
                f"it holds more than data.unpack.max_files={self.limits.max_files} files; raise that if it is right"
            )
