"""A large tensor on disk that is written batch by batch, and survives a kill in between."""

import json
import math
import os
import struct
import time
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pipeline.files import write_text

_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


class GrowingTensor:
    """A safetensors file: the whole tensors in `before`, then `name` (float32, of `shape`), written batch by batch.

    Every `checkpoint_s` seconds the file is flushed to disk, and the number of batches is written to `<path>.json`. A
    killed run resumes from there; its batches must be the same as before: same inputs, settings and code.
    """

    def __init__(
        self, path: Path, name: str, shape: tuple[int, ...], *, before: dict[str, Tensor], checkpoint_s: float
    ) -> None:
        self._path, self._count, self._checkpoint_s = path, path.with_name(f"{path.name}.json"), checkpoint_s
        self._flushed_at = time.monotonic()
        start = _start_of_file(name, shape, before)
        self._size = len(start) + 4 * math.prod(shape)
        known = json.loads(self._count.read_text()) if self._count.exists() else {"batches": 0, "bytes": len(start)}
        self.num_batches: int = known["batches"]
        """Batches in the file."""
        if not self.num_batches:
            path.write_bytes(start)
        self._file = path.open("r+b")
        self._file.truncate(known["bytes"])
        self._file.seek(known["bytes"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the file. After a block without an error it is complete, and loads like any safetensors file."""
        self.flush()
        size = self._file.tell()
        self._file.close()
        assert kind is not None or size == self._size, f"{self._path}: {size} of {self._size} bytes"

    def append(self, rows: Tensor) -> None:
        """Write the next batch of rows."""
        self._file.write(np.ascontiguousarray(rows.detach().cpu().numpy(), dtype="<f4").data)
        self.num_batches += 1
        if time.monotonic() - self._flushed_at > self._checkpoint_s:
            self.flush()

    def flush(self) -> None:
        """Flush what was written to disk, and record how much that is."""
        self._file.flush()
        os.fsync(self._file.fileno())
        write_text(self._count, json.dumps({"batches": self.num_batches, "bytes": self._file.tell()}))
        self._flushed_at = time.monotonic()


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
