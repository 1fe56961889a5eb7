"""Files as they are found in real folders, each with its verdict."""

import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.pipeline.data.heic import heic
from tests.pipeline.data.wide_gamut import wide_profile


@dataclass(frozen=True)
class Case:
    """A file in class folder `a`, its verdict, and a part of the reason."""

    name: str
    make: Callable[[Path], None]
    verdict: str
    reason: str = ""


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 32), seed: int = 0) -> Image.Image:
    width, height = size
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 4), np.uint8)
    pixels = np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width])
    return Image.fromarray(pixels) if mode == "RGBA" else Image.fromarray(pixels[..., :3].copy()).convert(mode)


def saved(mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (40, 32), seed: int = 0, **how: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode, size, seed).save(buffer, kind, **how)
    return buffer.getvalue()


def content(data: Callable[[], bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data())

    return make


def image(mode: str = "RGB", kind: str = "PNG", **how: Any) -> Callable[[Path], None]:
    return content(lambda: saved(mode, kind, **how))


def frames(kind: str, **how: Any) -> Callable[[Path], None]:
    return image(kind=kind, save_all=True, append_images=[picture(seed=1), picture(seed=2)], **how)


def turned(orientation: int) -> Callable[[Path], None]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image(kind="JPEG", exif=exif, seed=100 + orientation)


def deep(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(values).save(path)


def cut(data: bytes, keep: float) -> bytes:
    return data[: int(len(data) * keep)]


def ycck() -> bytes:
    """A CMYK JPEG whose Adobe segment says that its first three channels are YCC."""
    plain = saved("CMYK", "JPEG", seed=3)
    at = plain.index(b"Adobe")
    return plain[: at + 11] + b"\x02" + plain[at + 12 :]


def flipped_bit() -> bytes:
    data = bytearray(saved(seed=4))
    data[data.index(b"IDAT") + 20] ^= 0x10
    return bytes(data)


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def link(target: Callable[[Path], Path]) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target(path))


def outside(path: Path) -> Path:
    file = path.parents[2] / "outside.png"
    file.write_bytes(saved(seed=5))
    return file


def unreadable(path: Path) -> None:
    path.write_bytes(saved(seed=6))
    path.chmod(0)


def folder_of(*names: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).write_bytes(saved(seed=7))

    return make


ROOT = os.geteuid() == 0  # root can read a locked file
GRADIENT = np.linspace(0, 65535, 40 * 32).reshape(32, 40)
JPEG, PNG = saved(kind="JPEG", size=(200, 160), seed=8), saved(seed=9)

CASES = [
    Case("half.jpg", content(lambda: cut(JPEG, 0.5)), "rejected", "truncated"),
    Case("last2.jpg", content(lambda: JPEG[:-2]), "rejected", "truncated"),
    Case("zero.jpg", content(bytes), "rejected", "empty file"),
    Case("text.jpg", content(lambda: b"hello\n"), "rejected", "text"),
    Case("page.jpg", content(lambda: b"<!DOCTYPE html><html></html>"), "rejected", "HTML"),
    Case("header.jpg", content(lambda: JPEG[:20]), "rejected", ""),
    Case("double.jpg", content(lambda: b"\x00\x05\x16\x07" + bytes(60)), "rejected", "AppleDouble"),
    Case("._double.jpg", content(lambda: b"\x00\x05\x16\x07" + bytes(60)), "ignored", "hidden"),
    Case("photo.heic", content(heic), "accepted"),
    Case("photo-as.jpg", content(lambda: heic(turned=True)), "flagged", "named .jpg, but HEIF"),
    Case("half.heic", content(lambda: heic()[:400]), "rejected", "damaged"),
    Case("header.heic", content(lambda: heic()[:28] + bytes(60)), "rejected", "damaged HEIC"),
    Case("really-a-jpeg.png", image(kind="JPEG", seed=11), "flagged", "named .png, but JPEG"),
    Case("no-suffix", image(seed=12), "accepted"),
    Case("x.jfif", image(kind="JPEG", seed=13), "accepted"),
    Case("UPPER.JPG", image(kind="JPEG", seed=14), "accepted"),
    Case("flipped.png", content(flipped_bit), "rejected", "damaged"),
    Case("truncated.png", content(lambda: cut(PNG, 0.6)), "rejected", ""),
    Case("cmyk.jpg", image("CMYK", "JPEG", seed=15), "converted", "CMYK to RGB"),
    Case("ycck.jpg", content(ycck), "converted", "CMYK to RGB"),
    Case("palette.png", image("P", seed=16), "converted", "P to RGB"),
    Case("palette-clear.png", image("P", transparency=0, seed=17), "converted", "P to RGB"),
    Case("rgba.png", image("RGBA", seed=18), "converted", "RGBA to RGB"),
    Case("one-bit.png", image("1", seed=19), "converted", "1 to RGB"),
    Case("gray.png", image("L", seed=20), "accepted"),
    Case("gray-alpha.png", image("LA", seed=21), "converted", "LA to RGB"),
    Case("sixteen.png", deep(GRADIENT.astype(np.uint16)), "converted", "I;16 to RGB"),
    Case("thirty-two.tif", deep((GRADIENT * 9e3).astype(np.int32)), "converted", "own range"),
    Case("float.tif", deep(GRADIENT.T.astype(np.float32).copy()), "converted", "own range"),
    *(
        Case(f"turned{n}.jpg", turned(n), "accepted" if n == 1 else "converted", "" if n == 1 else f"orientation {n}")
        for n in range(1, 9)
    ),
    Case("nonsense-orientation.jpg", turned(77), "accepted"),
    Case("moving.gif", frames("GIF", seed=22), "converted", "first of several frames"),
    Case("moving.webp", frames("WEBP", seed=23), "converted", "first of several frames"),
    Case("moving.png", frames("PNG", seed=24), "converted", "first of several frames"),
    Case("pages.tif", frames("TIFF", seed=25), "converted", "first of several frames"),
    Case("progressive.jpg", image(kind="JPEG", progressive=True, seed=26), "accepted"),
    Case("wide.png", image(icc_profile=wide_profile(), seed=27), "converted", "to sRGB"),
    Case("bad-profile.png", image(icc_profile=b"rubbish", seed=28), "flagged", "profile is damaged"),
    Case("one-pixel.png", image(size=(1, 1)), "flagged", "only 1 x 1"),
    Case("line.png", image(size=(1, 400)), "flagged", "400 times as long"),
    Case("black.png", lambda path: Image.new("RGB", (40, 32)).save(path), "flagged", "one colour"),
    Case(
        "121-megapixels.png", lambda path: Image.new("1", (11000, 11000)).save(path), "rejected", "121 million pixels"
    ),
    Case("bomb.png", content(lambda: claims(60000, 60000)), "rejected", "million pixels"),
    Case("claims.png", content(lambda: claims(2000, 2000)), "rejected", ""),
    Case("link.png", link(lambda _: Path("gray.png")), "flagged", "the same pixels as a/gray.png"),
    Case("link-outside.png", link(outside), "accepted"),
    Case("dangling.png", link(lambda _: Path("nowhere.png")), "rejected", "link to nowhere"),
    Case("itself.png", link(lambda _: Path("itself.png")), "rejected", "link to itself"),
    Case("loop", link(lambda path: path.parent.parent), "rejected", "link to a folder"),
    Case("locked.png", unreadable, "accepted" if ROOT else "rejected", "" if ROOT else "permission"),
    Case("pipe.png", lambda path: os.mkfifo(path), "rejected", "neither a file nor a folder"),
    Case("new\nline.png", image(seed=29), "accepted"),
    Case("\U0001f600.png", image(seed=30), "accepted"),
    Case("'quoted\".png", image(seed=31), "accepted"),
    Case("-dash.png", image(seed=32), "accepted"),
    Case("n" * 251 + ".png", image(seed=33), "accepted"),
    Case(os.fsdecode(b"latin-\xe9.png"), image(seed=34), "rejected", "UTF-8"),
    Case(".hidden.png", image(seed=35), "ignored", "hidden"),
    Case("Thumbs.db", content(lambda: b"x"), "ignored", "left behind"),
    Case(".ipynb_checkpoints", folder_of("x.png"), "ignored", "hidden"),
    Case("__MACOSX", folder_of("x.png"), "ignored", "left behind"),
    Case("notes.txt", content(lambda: b"a remark"), "rejected", "text"),
]
