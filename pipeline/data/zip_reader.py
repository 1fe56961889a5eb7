"""Read a zip archive strictly: its directory, the header before each file, and all bytes between them must agree."""

import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.data.archive_entries import ArchiveError, Entry, Meter

_CHUNK = 2**20
_LOCAL = struct.Struct("<4s5H3L2H")
"""The header before a file: signature, version, flags, method, time, date, CRC, packed size, size, and the lengths of
the name and of the extra field (APPNOTE 4.3.7)."""
_ENCRYPTED, _SIZES_FOLLOW = 0x1, 0x8
_LONGEST_DESCRIPTOR = 24
"""Bytes after a file whose header was written before its size was known (APPNOTE 4.3.9)."""
_UNIX = (3, 19)
"""Systems whose zip programs store the kind of a file."""
_IN_ZIP64 = 0xFFFFFFFF


@contextmanager
def open_zip(archive: Path, meter: Meter) -> Iterator[Iterator[Entry]]:
    """Open a zip archive; gives its entries. Raises ArchiveError, and what `zipfile` and its decompressors raise."""
    with archive.open("rb") as raw, zipfile.ZipFile(archive) as file:
        _check_end(raw, file)
        _check_bytes(raw, file)
        yield (_entry(file, member, meter) for member in file.infolist())


def _entry(file: zipfile.ZipFile, member: zipfile.ZipInfo, meter: Meter) -> Entry:
    name = member.orig_filename.replace("\\", "/")  # as some programs of Windows write it
    _check_kind(member)
    if not name.endswith("/"):
        return Entry(name, member.file_size, _chunks(file, member, meter))
    if member.file_size:
        raise ArchiveError(f"its member {name!r} is a folder with content")
    return Entry(name, 0, None)


def _check_kind(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"its member {member.filename!r} is encrypted")
    kind = stat.S_IFMT(member.external_attr >> 16) if member.create_system in _UNIX else 0
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"its member {member.filename!r} is a link or a device, and only files are unpacked")


def _chunks(file: zipfile.ZipFile, member: zipfile.ZipInfo, meter: Meter) -> Iterator[bytes]:
    left = member.file_size
    with file.open(member) as content:
        while data := content.read(_CHUNK):  # at its end it compares the checksum
            left -= len(data)
            meter.count_bytes(len(data))
            yield data
    if left:
        raise ArchiveError(f"its member {member.filename!r} has not the size that its header says")


def _check_end(raw: IO[bytes], file: zipfile.ZipFile) -> None:
    """Check that the directory's end record is the end of the file: an archive inside it has one too."""
    raw.seek(-22 - len(file.comment), 2)
    end = raw.read(22)
    if end[:4] != b"PK\x05\x06" or struct.unpack("<H", end[20:])[0] != len(file.comment):
        raise ArchiveError("its end is damaged, or more follows after it")


def _check_bytes(raw: IO[bytes], file: zipfile.ZipFile) -> None:
    """Check that every byte before the directory belongs to one member that it lists: none may be hidden or shared."""
    at, may_follow = 0, 0
    for member in sorted(file.infolist(), key=lambda m: m.header_offset):
        _check_gap(at, member.header_offset, may_follow)
        at, may_follow = _end_of(raw, member)
    _check_gap(at, file.start_dir, may_follow)


def _check_gap(at: int, to: int, may_follow: int) -> None:
    if not 0 <= to - at <= may_follow:
        what = "belong to two of its members" if to < at else "belong to no member of its directory"
        raise ArchiveError(f"its bytes {min(at, to)} to {max(at, to)} {what}")


def _end_of(raw: IO[bytes], member: zipfile.ZipInfo) -> tuple[int, int]:
    """Where a member ends, and how many bytes of its descriptor may follow. Its own header must say the same."""
    raw.seek(member.header_offset)
    magic, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack(raw.read(_LOCAL.size))
    sizes = (crc, packed, size) == (member.CRC, member.compress_size, member.file_size)
    known = bool(flags & _SIZES_FOLLOW) or sizes or _IN_ZIP64 in (packed, size)
    if magic != b"PK\x03\x04" or method != member.compress_type or not known:
        raise ArchiveError(f"its member {member.filename!r} is not what its directory says")
    end = member.header_offset + _LOCAL.size + name + extra + member.compress_size
    return end, _LONGEST_DESCRIPTOR if flags & _SIZES_FOLLOW else 0
