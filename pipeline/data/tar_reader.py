"""Read a tar archive strictly: every header must be sound, and the end mark there.

Python's `tarfile` parses the headers, but does not walk through the archive. It ends in silence at a damaged header,
believes negative sizes (CVE-2025-8194), and reads extended headers of any size and at any cost (CVE-2024-6232).
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from pipeline.data.archive_entries import ArchiveError, Entry, Meter

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 2**20
_LONGEST_HEADER = 2**20
"""Bytes in an extended header, which holds a long name or a few values."""
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PACKERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@contextmanager
def open_tar(archive: Path, meter: Meter) -> Iterator[Iterator[Entry]]:
    """Open a tar archive, packed by gzip, bzip2, xz or not at all; gives its entries.

    A file's content is skipped where it was not read. The entries end only when all of the archive has been read and
    is complete. Raises ArchiveError, and what the decompressors raise.
    """
    with ExitStack() as opened:
        file = opened.enter_context(archive.open("rb"))
        start = file.read(6)
        file.seek(0)
        packer = next((packer for magic, packer in _PACKERS.items() if start.startswith(magic)), None)
        content: IO[bytes] = file if packer is None else opened.enter_context(packer(file))
        yield _entries(_Blocks(content, meter.count_bytes))


def find_files(archive: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, size) of the files in a tar archive that is not packed, without reading their content.

    Raises ArchiveError, as `open_tar` does, and for a packed archive, in which nothing has a place of its own.
    """
    with archive.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        if any(start.startswith(magic) for magic in _PACKERS):
            raise ArchiveError("it is packed, so that a file in it cannot be read alone: unpack it to a plain .tar")
        blocks = _SkippedBlocks(file, lambda _: None)
        for entry in _entries(blocks):
            if entry.content is not None:
                yield entry.name, blocks.position, entry.size


class _Blocks:
    """Reads forwards only, and counts."""

    def __init__(self, file: IO[bytes], count: Callable[[int], None]) -> None:
        self._file, self._count = file, count
        self.position = 0

    def read(self, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end."""
        data = self._file.read(size)
        self.position += len(data)
        self._count(len(data))
        return data

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield `size` bytes in chunks, and skip what fills the last block. Raises ArchiveError if they end before."""
        left = size
        while left:
            if not (data := self.read(min(left, _CHUNK))):
                raise ArchiveError("it is cut off")
            left -= len(data)
            yield data
        filler = -size % _BLOCK
        if len(self.read(filler)) < filler:
            raise ArchiveError("it is cut off")

    def content(self, size: int) -> Iterator[bytes]:
        """Yield the content of a file, of `size` bytes, in chunks."""
        return self.chunks(size)


class _SkippedBlocks(_Blocks):
    """Reads headers only; what is between them is passed over."""

    def content(self, size: int) -> Iterator[bytes]:
        """Yield nothing, and go on to what follows: nothing, if the archive is cut off."""
        self.position += size + -size % _BLOCK
        self._file.seek(self.position)
        yield from ()


def _entries(blocks: _Blocks) -> Iterator[Entry]:
    extended: dict[str, str] = {}
    while (header := _header(blocks)) is not None:
        name, size = extended.get("path", header.name), _size(header, extended)
        match header.type:
            case tarfile.XHDTYPE | tarfile.SOLARIS_XHDTYPE:
                extended |= _pax(_whole(blocks, header))
            case tarfile.XGLTYPE:
                if {"path", "size"} & _pax(_whole(blocks, header)).keys():
                    raise ArchiveError(f"its header at byte {blocks.position} names all files alike")
            case tarfile.GNUTYPE_LONGNAME:
                extended["path"] = _text(_whole(blocks, header).rstrip(b"\0"))
            case tarfile.GNUTYPE_LONGLINK:
                _whole(blocks, header)
            case tarfile.DIRTYPE:
                yield Entry(name, 0, None)
                extended = {}
            case kind if kind in _FILES and not any(key.startswith("GNU.sparse") for key in extended):
                yield from _file(name, size, blocks)
                extended = {}
            case kind:
                is_sparse = kind == tarfile.GNUTYPE_SPARSE or kind in _FILES
                what = "a link or a device" if kind in _LINKS else "sparse" if is_sparse else f"of the kind {kind!r}"
                raise ArchiveError(f"its member {name!r} is {what}, and only files are unpacked")
    if extended:
        raise ArchiveError("its last file is missing")
    _check_rest(blocks)


def _header(blocks: _Blocks) -> tarfile.TarInfo | None:
    """The next header; None at the end mark, which is a block of zeros."""
    at = blocks.position
    try:
        return tarfile.TarInfo.frombuf(blocks.read(_BLOCK), "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        if at == 0:
            raise ArchiveError("it is empty") from None
        return None
    except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
        raise ArchiveError("it is cut off: the mark at its end is missing") from None
    except (tarfile.HeaderError, ValueError):
        raise ArchiveError(f"it has a damaged header at byte {at}" if at else "it is damaged, or no archive") from None


def _check_rest(blocks: _Blocks) -> None:
    """Read to the end: a decompressor checks its sum there, and a second archive must not be passed over."""
    while data := blocks.read(_CHUNK):
        if data.strip(b"\0"):
            raise ArchiveError(f"more follows after its end mark, before byte {blocks.position}")


def _file(name: str, size: int, blocks: _Blocks) -> Iterator[Entry]:
    content = blocks.content(size)
    yield Entry(name, size, content)
    for _ in content:
        pass


def _size(header: tarfile.TarInfo, extended: dict[str, str]) -> int:
    given = extended.get("size", "") if header.type in _FILES else ""
    size = int(given) if given.isdecimal() else header.size
    if size < 0 or (given and not given.isdecimal()):
        raise ArchiveError(f"its member {header.name!r} has the size {given or size}")
    return size


def _whole(blocks: _Blocks, header: tarfile.TarInfo) -> bytes:
    """The content of an extended header."""
    if header.size > _LONGEST_HEADER:
        raise ArchiveError(f"it has a header of {header.size} bytes at byte {blocks.position}")
    return b"".join(blocks.chunks(header.size))


def _pax(records: bytes) -> dict[str, str]:
    """The values of an extended header: lines such as `20 path=cats/01.png`, each with its own length before it."""
    values, at = {}, 0
    while at < len(records):
        space = records.find(b" ", at, at + 20)
        length = records[at:space] if space > 0 else b""
        end = at + int(length) if length.isdigit() else at
        key, equals, value = records[space + 1 : end].partition(b"=")
        if end > len(records) or not equals or not value.endswith(b"\n"):
            raise ArchiveError("it has a damaged header")
        values[_text(key)] = _text(value[:-1])
        at = end
    return values


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
