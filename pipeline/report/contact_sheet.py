"""Contact sheets: grids of small labelled images."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipeline.files import atomic_file
from pipeline.report.text import drawable, font_file

_PAPER, _TILE, _INK, _GREY = "#FFFFFF", "#F0F0F0", "#222222", "#767676"
_GAP_PX = 8
_FONT_PX = 14
_LINE_PX = 18
_LABEL_CHARS = 18
_LABEL_PX = 160


@dataclass(frozen=True)
class Caption:
    """The text below a misclassified image, or below one whose label looks wrong."""

    file: str
    true: str
    predicted: str
    confidence: float
    """Probability of the predicted class, 0..1; of the label, where the label is doubted."""


def contact_sheet(
    path: Path,
    *,
    rows: Sequence[tuple[str, Sequence[Image.Image]]],
    tile_px: int = 96,
    columns: int = 8,
    column_labels: Sequence[str] = (),
) -> None:
    """Write a grid of square tiles as a PNG, with the label of each row on its left.

    Images keep their aspect ratio; small ones are enlarged by a whole factor, without smoothing.

    Args:
        path: The PNG to write.
        rows: Label and images of each row; a row with more than `columns` images wraps.
        tile_px: Side of a tile.
        columns: Most tiles beside each other.
        column_labels: Text above the columns.
    """
    columns = max(1, min(columns, max((len(images) for _, images in rows), default=1)))
    lines = [line for label, images in rows for line in _wrapped(label, images, columns)]
    top = _GAP_PX + (_LINE_PX if column_labels else 0)
    pitch = tile_px + _GAP_PX
    heights = [pitch if images else _GAP_PX + _LINE_PX * len(_folded(label)) for label, images in lines]
    sheet, draw = _blank(_LABEL_PX + columns * pitch + _GAP_PX, top + (sum(heights) or 2 * _LINE_PX))
    for i, name in enumerate(column_labels[:columns]):
        _write(draw, (_LABEL_PX + i * pitch, 2), name, max_chars=max(4, tile_px // 8), fill=_GREY)
    y = top
    for (label, images), height in zip(lines, heights, strict=True):
        for i, text in enumerate(_folded(label)[: max(1, height // _LINE_PX)]):
            _write(draw, (_GAP_PX, y + i * _LINE_PX), text, max_chars=_LABEL_CHARS)
        for i, image in enumerate(images):
            _paste(sheet, image, (_LABEL_PX + i * pitch, y), tile_px)
        if not images:
            _write(draw, (_LABEL_PX, y), "no image", fill=_GREY)
        y += height
    if not lines:
        _write(draw, (_GAP_PX, _GAP_PX), "nothing to show", fill=_GREY)
    _save(sheet, path)


def mistakes_sheet(
    path: Path,
    *,
    images: Sequence[Image.Image | None],
    captions: Sequence[Caption],
    tile_px: int = 160,
    columns: int = 5,
    is_label_doubted: bool = False,
) -> None:
    """Write misclassified images, in the given order, with their captions below.

    An image that cannot be read any more is None. `is_label_doubted` words the captions as a question to the label.
    Raises ValueError where images and captions differ in number.
    """
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images for {len(captions)} captions")
    columns = max(1, min(columns, len(images)))
    pitch, height = tile_px + 2 * _GAP_PX, tile_px + 4 * _LINE_PX + 2 * _GAP_PX
    num_rows = -(-len(images) // columns)
    sheet, draw = _blank(columns * pitch + _GAP_PX, (num_rows * height or 2 * _LINE_PX) + _GAP_PX)
    chars = tile_px // 8
    true, sure = ("label", "for the label") if is_label_doubted else ("true", "confident")
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = _GAP_PX + i % columns * pitch, _GAP_PX + i // columns * height
        if image is None:
            _write(draw, (x, y), "no image", fill=_GREY)
        else:
            _paste(sheet, image, (x, y), tile_px)
        text = [
            (caption.file, _GREY),
            (f"{true}: {drawable(caption.true, chars - len(true) - 2)}", _INK),
            (f"→ {drawable(caption.predicted, chars - 2)}", "#B34700"),
            (f"{caption.confidence:.1%} {sure}", _INK),
        ]
        for line, (words, fill) in enumerate(text):
            _write(draw, (x, y + tile_px + 2 + line * _LINE_PX), words, max_chars=chars, fill=fill)
    if not images:
        _write(draw, (_GAP_PX, _GAP_PX), "no mistakes", fill=_GREY)
    _save(sheet, path)


def _wrapped(label: str, images: Sequence[Image.Image], columns: int) -> Iterator[tuple[str, Sequence[Image.Image]]]:
    yield label, images[:columns]
    for start in range(columns, len(images), columns):
        yield "", images[start : start + columns]


def _folded(label: str) -> list[str]:
    """Wrap a label into lines that fit its column, at most five."""
    return textwrap.wrap(drawable(label, 4 * _LABEL_CHARS), _LABEL_CHARS)[:5] or [""]


def _blank(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (width, height), _PAPER)
    return sheet, ImageDraw.Draw(sheet)


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, *, max_chars: int = 24, fill: str = _INK) -> None:
    font = ImageFont.truetype(str(font_file()), _FONT_PX, layout_engine=ImageFont.Layout.BASIC)
    draw.text(at, drawable(text, max_chars), font=font, fill=fill)


def _paste(sheet: Image.Image, image: Image.Image, at: tuple[int, int], tile_px: int) -> None:
    fitted = _fit(as_rgb(image), tile_px)
    tile = Image.new("RGB", (tile_px, tile_px), _TILE)
    tile.paste(fitted, ((tile_px - fitted.width) // 2, (tile_px - fitted.height) // 2))
    sheet.paste(tile, at)


def _fit(image: Image.Image, tile_px: int) -> Image.Image:
    longest = max(image.size)
    factor = tile_px // longest
    if factor >= 2:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = [max(1, round(side * tile_px / longest)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: 16-bit and float greys are stretched to their range, transparency becomes grey."""
    if image.mode.startswith(("I", "F")):
        deep = image.convert("F")
        extrema = deep.getextrema()
        low, high = float(extrema[0]), float(extrema[1])  # type: ignore[arg-type]
        scale = 255 / (high - low) if high > low else 0.0
        return deep.point(lambda v: v * scale - low * scale).convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _TILE), shown).convert("RGB")
    return image.convert("RGB")


def _save(sheet: Image.Image, path: Path) -> None:
    with atomic_file(path) as file:
        sheet.save(file, format="PNG", optimize=False)
