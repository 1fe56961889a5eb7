"""Shards, written from images in files: the same images give the same bytes.

Each shard is a plain tar file, whole or not there. A killed run goes on: what it has written is not written again, as
long as the images are older.
"""

import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from pipeline.data.archive_entries import ArchiveError, Names
from pipeline.data.found import FoundFile
from pipeline.data.register import Register
from pipeline.data.shard_index import find_shards, members_of, save_index
from pipeline.data.shards import INDEX, SUFFIX, Member
from pipeline.files import atomic_file
from pipeline.settings import SettingsError
from pipeline.workspace import Bar

_CHUNK = 2**20
_MAX_SHARDS = 100_000
_LISTED = 5


@dataclass
class ShardWriter:
    """Writes what a source found into the folder `out`."""

    root: Path
    """The paths of what was found are relative to it."""
    out: Path
    shard_bytes: int
    """Of images in a shard; a larger image has one of its own."""
    group: str | None
    """The name of the column of groups, if the source has groups."""
    bar: Bar
    """Moves by one for each image."""
    num_shards: int = field(default=0, init=False)
    num_images: int = field(default=0, init=False)

    def write(self, found: Register) -> None:
        """Write all files without a problem, in the order of their paths, and at last the index.

        Raises SettingsError for a folder that holds other shards, a name that no tar file may hold, and an image that
        changes while it is written.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / INDEX).exists():
            raise SettingsError(f"{self.out} holds shards already: name a new folder, or remove this one")
        save_index(self.out, self._write_all(found), group=self.group)

    def _write_all(self, found: Register) -> Iterator[Member]:
        for images in self._batches(found):
            shard = f"{self.num_shards:05d}{SUFFIX}"
            planned = _plan(shard, images)
            if not self._is_written(shard, planned, images):
                self._write(shard, planned, images)
            self.num_shards += 1
            self.num_images += len(images)
            self.bar.advance(len(images), note=shard)
            yield from planned
        if self.num_shards == 0:
            raise SettingsError(f"{self.root} holds no image to write")
        if others := find_shards(self.out)[self.num_shards :]:
            raise SettingsError(
                f"{self.out} holds {', '.join(others[:_LISTED])} of other images: remove these, and type the same "
                "command again"
            )

    def _batches(self, found: Register) -> Iterator[list[tuple[FoundFile, int]]]:
        """The files of each shard, with their sizes in bytes."""
        images: list[tuple[FoundFile, int]] = []
        total = 0
        for file in found.found_by_path():
            if file.problem:
                continue
            size = self._stat(file).st_size
            if images and total + size > self.shard_bytes:
                yield images
                images, total = [], 0
            images.append((file, size))
            total += size
            if self.num_shards == _MAX_SHARDS:
                raise SettingsError(f"more than {_MAX_SHARDS} shards: make them larger with --shard-mb")
        if images:
            yield images

    def _stat(self, file: FoundFile) -> os.stat_result:
        try:
            return (self.root / file.path).stat()
        except OSError as error:
            raise SettingsError(f"{self.root / file.path} cannot be read: {error.strerror}") from None

    def _is_written(self, shard: str, planned: Sequence[Member], images: Sequence[tuple[FoundFile, int]]) -> bool:
        """Whether an earlier run has written this shard, of these images as they are now."""
        if not (self.out / shard).exists():
            return False
        written_ns = (self.out / shard).stat().st_mtime_ns
        there = [m.place for m in members_of(self.out, shard)]
        return there == [m.place for m in planned] and all(
            self._stat(file).st_ctime_ns < written_ns for file, _ in images
        )

    def _write(self, shard: str, planned: Sequence[Member], images: Sequence[tuple[FoundFile, int]]) -> None:
        with atomic_file(self.out / shard) as tar:
            for member, (image, _) in zip(planned, images, strict=True):
                tar.write(_header(member))
                self._copy(image, member.size, tar)
                tar.write(bytes(-member.size % tarfile.BLOCKSIZE))
            tar.write(bytes(2 * tarfile.BLOCKSIZE))  # the mark of its end

    def _copy(self, image: FoundFile, size: int, tar: BinaryIO) -> None:
        path, left = self.root / image.path, size
        try:
            with path.open("rb") as content:
                while data := content.read(_CHUNK):
                    left -= len(data)
                    if left < 0:
                        break
                    tar.write(data)
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
        if left:
            raise SettingsError(f"{path} has changed while it was written: type the same command again")


def _plan(shard: str, images: Sequence[tuple[FoundFile, int]]) -> list[Member]:
    """Where each image lies in a shard."""
    names, planned, position = Names(), list[Member](), 0
    for image, size in images:
        try:
            path = f"{shard}/{names.add(image.path, is_file=True)}"
        except ArchiveError as error:
            raise SettingsError(f"no shard can hold an image of this name: {error}") from None
        member = Member(path, 0, size, image.label, image.split or "", image.group)
        if any(not text.isprintable() for text in (member.label, member.group)):
            raise SettingsError(
                f"{image.path}: its label {member.label!r} or group {member.group!r} has a control character"
            )
        position += len(_header(member))
        planned.append(replace(member, offset=position))
        position += size + -size % tarfile.BLOCKSIZE
    return planned


def _header(member: Member) -> bytes:
    """The header of a file: of nobody, from no time, and so the same for everybody."""
    info = tarfile.TarInfo(member.name)
    info.size = member.size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def left_out(found: Register) -> Counter[str]:
    """How many files are not written, by the reason."""
    return Counter(file.problem for file in found.found_by_path() if file.problem)
