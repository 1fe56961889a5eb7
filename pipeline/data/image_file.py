"""Where the bytes of an image come from: a file of its own, or a shard. All that reads images reads them here."""

import hashlib
import io
import stat
from pathlib import Path
from typing import BinaryIO

from pipeline.data.shards import ShardError, find_member, member_state, read_member, shard_of
from pipeline.files import file_digest, file_state


class NoImageFileError(ValueError):
    """What is under a path cannot be an image: a folder, a pipe, or an empty file. The message says which."""


def open_image_file(path: Path) -> BinaryIO:
    """Open an image file for reading. One in a shard is read whole, into memory.

    Raises NoImageFileError, and OSError for what cannot be read.
    """
    shard = shard_of(str(path))
    if shard is None:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # pipes and devices may never end
            raise NoImageFileError("a folder" if stat.S_ISDIR(found.st_mode) else "neither a file nor a folder")
        if found.st_size == 0:
            raise NoImageFileError("empty file")
        return path.open("rb")
    content = read_member(str(path), shard)
    if not content:
        raise NoImageFileError("empty file")
    return io.BytesIO(content)


def digest_image_file(path: Path) -> str:
    """SHA-256 of an image file's content. Raises OSError."""
    shard = shard_of(str(path))
    return file_digest(path) if shard is None else hashlib.sha256(read_member(str(path), shard)).hexdigest()


def image_file_state(path: str) -> str:
    """Text that changes when an image file does, or what a link leads to; see `files.file_state`."""
    shard = shard_of(path)
    try:
        return file_state(path, of_this_copy=True) if shard is None else member_state(path, shard)
    except ShardError:
        return "gone"


def is_image_file(path: Path) -> bool:
    """Whether there is a file under this path."""
    shard = shard_of(str(path))
    if shard is None:
        return path.is_file()
    try:
        find_member(str(path), shard)
    except ShardError:
        return False
    return True
