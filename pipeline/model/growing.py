"""A large tensor on disk that is written batch by batch, and survives a kill in between."""

import hashlib
import json
import math
import struct
import time
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import torch
from torch import Tensor

from pipeline.files import CheckedFile
from pipeline.kept import drop, read_kept, write_kept

_CHUNK = 2**20
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


class GrowingTensor:
    """A safetensors file: the whole tensors in `before`, then `name` (float32, of `shape`), written batch by batch.

    Every `checkpoint_s` seconds the file is flushed to disk, and the number of batches is kept in `<path>.json` with a
    checksum of the file up to there. A killed run resumes from there; its batches must be the same as before: same
    inputs, settings and code. A damaged file is begun again.
    """

    def __init__(
        self, path: Path, name: str, shape: tuple[int, ...], *, before: dict[str, Tensor], checkpoint_s: float
    ) -> None:
        self._path, self._count, self._checkpoint_s = path, path.with_name(f"{path.name}.json"), checkpoint_s
        self._flushed_at = time.monotonic()
        start = _start_of_file(name, shape, before)
        self._size = len(start) + 4 * math.prod(shape)
        self._written = 0
        self._hash = hashlib.sha256()
        self.num_batches: int = self._resume()
        """Batches in the file."""
        if self.num_batches:
            self._file = CheckedFile(path, "r+b")
            self._file.truncate(self._written)
            self._file.seek(self._written)
        else:
            path.unlink(missing_ok=True)  # never through a second name that it may have
            self._file, self._written, self._hash = CheckedFile(path, "xb"), 0, hashlib.sha256()
            self._write(start)

    def _resume(self) -> int:
        """Read how far the file is, and check that it is what it was; returns the number of its batches, or 0."""
        known = read_kept(self._count)
        if known is None or not self._path.exists():
            return 0
        self._written = known["bytes"]
        with self._path.open("rb") as file:
            self._hash = _hash_start(file, self._written)
        if self._hash.hexdigest() == known["sha256"]:
            return int(known["batches"])
        drop(self._path)
        return 0

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._written += memoryview(content).nbytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the file. After a block without an error it is complete, and loads like any safetensors file."""
        try:
            self.flush()
        finally:
            self._file.close()
        assert kind is not None or self._written == self._size, f"{self._path}: {self._written} of {self._size} bytes"

    def append(self, rows: Tensor) -> None:
        """Write the next batch of rows."""
        self._write(np.ascontiguousarray(rows.detach().cpu().numpy(), dtype="<f4").data)
        self.num_batches += 1
        if time.monotonic() - self._flushed_at > self._checkpoint_s:
            self.flush()

    def flush(self) -> None:
        """Flush what was written to disk, and record how much that is."""
        self._file.sync()
        kept = {"batches": self.num_batches, "bytes": self._written, "sha256": self._hash.hexdigest()}
        write_kept(self._count, kept)
        self._flushed_at = time.monotonic()


def _hash_start(file: BinaryIO, length: int) -> "hashlib._Hash":
    """SHA-256 of the first `length` bytes."""
    known = hashlib.sha256()
    while length and (chunk := file.read(min(length, _CHUNK))):
        known.update(chunk)
        length -= len(chunk)
    return known


def _start_of_file(name: str, shape: tuple[int, ...], before: dict[str, Tensor]) -> bytes:
    """The file up to its first row: https://github.com/huggingface/safetensors#format, little-endian."""
    entries, offset = {}, 0
    for own, dtype, size in [*((n, t.dtype, tuple(t.shape)) for n, t in before.items()), (name, torch.float32, shape)]:
        end = offset + dtype.itemsize * math.prod(size)
        entries[own] = {"dtype": _DTYPES[dtype], "shape": list(size), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + b"".join(t.contiguous().numpy().tobytes() for t in before.values())
