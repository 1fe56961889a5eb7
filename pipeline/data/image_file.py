"""Where the bytes of an image come from: a file of its own, or a shard. All that reads images reads them here."""

import hashlib
import io
import stat
from pathlib import Path
from typing import BinaryIO

from pipeline.data.shards import find_member, member_state, read_member, shard_of
from pipeline.files import file_digest, file_state


def open_image_file(path: Path) -> BinaryIO:
    """Open an image file for reading. One in a shard is read whole, into memory. Raises OSError."""
    shard = shard_of(str(path))
    return path.open("rb") if shard is None else io.BytesIO(read_member(str(path), shard))


def digest_image_file(path: Path) -> str:
    """SHA-256 of an image file's content. Raises OSError."""
    shard = shard_of(str(path))
    return file_digest(path) if shard is None else hashlib.sha256(read_member(str(path), shard)).hexdigest()


def stat_image_file(path: Path) -> tuple[int, int]:
    """The mode (see `os.stat`) and the size in bytes of what is under this path. Raises OSError."""
    shard = shard_of(str(path))
    if shard is not None:
        return stat.S_IFREG, find_member(str(path), shard).size
    found = path.stat()
    return found.st_mode, found.st_size


def image_file_state(path: str) -> str:
    """Text that changes when an image file does, or what a link leads to; see `files.file_state`."""
    shard = shard_of(path)
    try:
        return file_state(path, of_this_copy=True) if shard is None else member_state(path, shard)
    except OSError:
        return "gone"


def is_image_file(path: Path) -> bool:
    """Whether there is a file under this path."""
    try:
        return stat.S_ISREG(stat_image_file(path)[0])
    except OSError:
        return False
