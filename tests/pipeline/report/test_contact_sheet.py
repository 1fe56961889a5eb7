"""Sheets: tiny images stay visible, odd modes and shapes are drawn, bytes repeat."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report.contact_sheet import Caption, contact_sheet, mistakes_sheet

RED = (255, 0, 0)


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_an_8_px_image_is_enlarged_without_smoothing(tmp_path: Path) -> None:
    digit = Image.new("RGB", (8, 8), "blue")
    digit.putpixel((3, 3), RED)
    contact_sheet(tmp_path / "a.png", rows=[("three", [digit])], tile_px=96)
    red = (_pixels(tmp_path / "a.png") == RED).all(axis=2)
    assert red.sum() == 12 * 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"])
def test_every_mode_is_drawn(mode: str, tmp_path: Path) -> None:
    contact_sheet(tmp_path / "a.png", rows=[(mode, [Image.new(mode, (20, 10))])])
    assert (tmp_path / "a.png").stat().st_size > 0


def test_deep_greys_are_spread_over_their_range(tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[1000, 3000]], dtype=np.uint16))
    contact_sheet(tmp_path / "a.png", rows=[("", [deep])], tile_px=32)
    colours = {tuple(c) for c in _pixels(tmp_path / "a.png").reshape(-1, 3).tolist()}
    assert {(0, 0, 0), (255, 255, 255)} <= colours


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1), (95, 95), (97, 97)])
def test_every_shape_fits_its_tile(size: tuple[int, int], tmp_path: Path) -> None:
    contact_sheet(tmp_path / "a.png", rows=[("", [Image.new("RGB", size, RED)])], tile_px=96)
    red = np.argwhere((_pixels(tmp_path / "a.png") == RED).all(axis=2))
    assert (red.max(axis=0) - red.min(axis=0)).max() == 95


def test_a_long_row_wraps(tmp_path: Path) -> None:
    images = [Image.new("RGB", (4, 4), RED)] * 5
    contact_sheet(tmp_path / "a.png", rows=[("five", images)], tile_px=40, columns=2)
    assert (_pixels(tmp_path / "a.png") == RED).all(axis=2).sum() == 5 * 40 * 40


@pytest.mark.parametrize("rows", [[], [("<b>\n$x$ 🐶 " * 30, [])]])
def test_nothing_to_show_is_said(rows: list[tuple[str, list[Image.Image]]], tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        contact_sheet(tmp_path / name, rows=rows, column_labels=["犬"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert _pixels(tmp_path / "a.png").min() < 200


@pytest.mark.parametrize("num", [0, 1, 7])
def test_mistakes(num: int, tmp_path: Path) -> None:
    captions = [Caption(f"dir/\udcff{i}" * 9, "$x_1$", "<script>\n🐶", 0.9)] * num if (i := num) else []
    images = [Image.new("L", (8, 8), 255)] * num
    for name in ("a.png", "b.png"):
        mistakes_sheet(tmp_path / name, images=images, captions=captions)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_each_mistake_has_its_caption(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 images for 0 captions"):
        mistakes_sheet(tmp_path / "a.png", images=[Image.new("L", (8, 8))], captions=[])
