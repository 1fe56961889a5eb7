"""What is kept between runs beside their results: checkpoints, caches, notes. All of it can be made again.

Such a file ends in a seal, a checksum of what is before it. One that is damaged, cut, empty or of another version is
dropped, with a line that says so: it is never used, and never stands in the way.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from pipeline.files import atomic_file
from pipeline.printable import printable

_SEAL = b"\nsealed 1 "
_LENGTH = len(_SEAL) + 64 + 1


def write_sealed(path: Path, content: bytes | memoryview) -> None:
    """Write `content` and its seal; a kill at any moment leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(content)
        file.write(_seal(content))


def read_sealed(path: Path) -> bytes | None:
    """Return what was written, or None if the file is missing or damaged; a damaged one is dropped."""
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    content = stored[:-_LENGTH]
    if stored[len(content) :] == _seal(content):
        return content
    drop(path)
    return None


def write_kept(path: Path, value: object) -> None:
    """Write a JSON value and its seal. Raises ValueError for NaN and infinity."""
    write_sealed(path, json.dumps(value, allow_nan=False).encode())


def read_kept(path: Path) -> Any | None:
    """Return the JSON value, or None if the file is missing or damaged; a damaged one is dropped."""
    content = read_sealed(path)
    return None if content is None else json.loads(content)


def drop(path: Path) -> None:
    """Remove a damaged file, and say so."""
    path.unlink(missing_ok=True)
    print(printable(f"{path} is damaged, or of another version: it is dropped, and made again"), file=sys.stderr)


def _seal(content: bytes | memoryview) -> bytes:
    return _SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"
