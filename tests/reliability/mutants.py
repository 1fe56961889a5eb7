"""Images and archives of all kinds, and random damage to them."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.pipeline.data.cases import picture, saved, ycck
from tests.pipeline.data.heic import heic

Random = np.random.Generator


def images() -> dict[str, bytes]:
    """A small image of each format, by file name."""
    deep = np.linspace(0, 4000, 40 * 32).reshape(32, 40)
    return {
        "plain.jpg": saved(kind="JPEG", seed=1),
        "progressive.jpg": saved(kind="JPEG", progressive=True, seed=2),
        "cmyk.jpg": ycck(),
        "rgb.png": saved(seed=3),
        "palette.png": saved("P", seed=4, transparency=0),
        "deep.png": _saved(deep.astype(np.uint16), "PNG"),
        "lossy.webp": saved(kind="WEBP", seed=5),
        "lossless.webp": saved("RGBA", "WEBP", seed=6, lossless=True),
        "moving.gif": saved(kind="GIF", seed=7, save_all=True, append_images=[picture(seed=8)]),
        "x.bmp": saved(kind="BMP", seed=9),
        "raw.tif": saved(kind="TIFF", seed=10),
        "lzw.tif": saved(kind="TIFF", seed=11, compression="tiff_lzw"),
        "jpeg.tif": saved(kind="TIFF", seed=12, compression="jpeg"),
        "float.tif": _saved(deep.astype(np.float32), "TIFF"),
        "x.avif": saved(kind="AVIF", seed=13),
        "x.jp2": saved(kind="JPEG2000", seed=14),
        "x.ppm": saved(kind="PPM", seed=15),
        "x.heic": heic(),
    }


def _saved(values: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def contents() -> dict[str, bytes]:
    """What every archive holds: files that can and cannot be packed, an empty one, and a long name."""
    random = np.random.default_rng(0)
    return {
        "photos/cat/1.png": saved(seed=1),
        "photos/cat/2.bin": random.bytes(3000),
        "photos/dog/" + "folder-" * 9 + "/" + "name-" * 12 + "1.bmp": saved(kind="BMP", seed=2),
        "photos/dog/empty": b"",
        "photos/dog/été.txt": b"a remark\n" * 40,
    }


def archives() -> dict[str, bytes]:
    """An archive of each kind with these contents, by file name."""
    plain = {name: _tar(kind) for name, kind in (("ustar", 0), ("gnu", 1), ("pax", 2))}
    packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    return {
        "stored.zip": _zip(zipfile.ZIP_STORED),
        "deflated.zip": _zip(zipfile.ZIP_DEFLATED),
        "lzma.zip": _zip(zipfile.ZIP_LZMA),
        **{f"{name}.tar": data for name, data in plain.items()},
        **{f"{name}.tar.{suffix}": pack(plain[name]) for name in plain for suffix, pack in packers.items()},
    }


def _zip(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.mkdir("photos")
        for name, data in contents().items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tar(kind: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        folder = tarfile.TarInfo("photos")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in contents().items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def mutate(data: bytes, others: list[bytes], random: Random) -> tuple[str, bytes]:
    """Damage `data` in one to three ways; returns what was done, and the result, which differs."""
    done: list[str] = []
    result = data
    while not done or result == data:
        for _ in range(random.integers(1, 4)):
            damage = DAMAGES[random.integers(len(DAMAGES))]
            result = damage(result, others[random.integers(len(others))], random)
            done.append(damage.__name__.strip("_"))
    return "+".join(done), result


def _run(data: bytes, random: Random) -> tuple[int, int]:
    """The ends of a random run, often at blocks of a tar archive or in the first bytes."""
    among = len(data) + 1 if random.random() < 0.7 else min(64, len(data) + 1)
    start = int(random.integers(among))
    length = int(2 ** random.uniform(0, 11))
    if random.random() < 0.2:
        start, length = start // 512 * 512, -(-length // 512) * 512
    return start, min(len(data), start + length)


def _flip(data: bytes, _: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _times in range(random.integers(1, 9) if changed else 0):
        changed[random.integers(len(changed))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _cut(data: bytes, _: bytes, random: Random) -> bytes:
    return data[: random.integers(len(data) + 1)]


def _remove(data: bytes, _: bytes, random: Random) -> bytes:
    a, b = _run(data, random)
    return data[:a] + data[b:]


def _repeat(data: bytes, _: bytes, random: Random) -> bytes:
    a, b = _run(data, random)
    return data[:b] + data[a:b] + data[b:]


def _copy(data: bytes, _: bytes, random: Random) -> bytes:
    a, b = _run(data, random)
    to = int(random.integers(len(data) + 1))
    return data[:to] + data[a:b] + data[to + b - a :]


def _swap(data: bytes, _: bytes, random: Random) -> bytes:
    (a, b), (c, d) = sorted([_run(data, random), _run(data, random)])
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _insert(data: bytes, _: bytes, random: Random) -> bytes:
    a, b = _run(data, random)
    run = random.bytes(b - a) if random.random() < 0.5 else bytes([int(random.integers(256))]) * (b - a)
    return data[:a] + run + data[a:]


def _blank(data: bytes, _: bytes, random: Random) -> bytes:
    a, b = _run(data, random)
    return data[:a] + bytes(b - a) + data[b:]


def _splice(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: random.integers(len(data) + 1)] + other[random.integers(len(other) + 1) :]


def _head(data: bytes, other: bytes, random: Random) -> bytes:
    length = int(2 ** random.uniform(1, 10))
    return other[:length] + data[length:]


DAMAGES = (_flip, _flip, _flip, _cut, _remove, _repeat, _copy, _swap, _insert, _blank, _splice, _head)
