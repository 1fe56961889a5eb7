"""Writes what Pillow does not: PNG of 16-bit colour, and TIFF of any number of bands."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_png(path: Path, values: np.ndarray) -> None:
    """Write uint16 [height, width, 3 or 4] as PNG."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def write_tiff(path: Path, values: np.ndarray, *, order: str = "<", more: Mapping[int, int | bytes] = {}) -> None:
    """Write [height, width, bands] as TIFF, uncompressed in one strip; `more` are further tags, bytes as text."""
    height, width, bands = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()  # type: ignore[arg-type]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags: dict[int, int | bytes | list[int]] = {
        **{256: width, 257: height, 258: [values.dtype.itemsize * 8] * bands, 259: 1, 262: 2 if bands >= 3 else 1},
        **{273: 0, 277: bands, 278: height, 279: len(data), 284: 1, 339: [kind] * bands},
        **({338: [0] * (bands - 3)} if bands > 3 else {}),
        **more,
    }
    base, extra = 8 + 2 + 12 * len(tags) + 4, b""
    entries: list[tuple[int, int, int, bytes]] = []
    for tag, value in sorted(tags.items()):
        code, count, raw = 4, 1, b""
        if isinstance(value, bytes):
            code, count, raw = 2, len(value), value
        elif isinstance(value, list):
            code, count, raw = 3, len(value), struct.pack(f"{order}{len(value)}H", *value)
        else:
            raw = struct.pack(f"{order}I", value)
        if len(raw) > 4:
            raw, extra = struct.pack(f"{order}I", base + len(extra)), extra + raw
        entries.append((tag, code, count, raw.ljust(4, b"\0")))
    place = struct.pack(f"{order}I", base + len(extra))
    directory = b"".join(
        struct.pack(f"{order}HHI", tag, code, count) + (place if tag == 273 else raw)
        for tag, code, count, raw in entries
    )
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    path.write_bytes(start + directory + bytes(4) + extra + data)
