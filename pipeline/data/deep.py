"""Colour of 16 bits per channel. Pillow decodes its high bytes alone, so that 12-bit values would be nearly black."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.colour import Notes, bits_for
from pipeline.data.image_file import open_image_file

_STRIP_ROWS = 256
_FULL = 2**14
"""From this highest value on, an image needs all 16 bits, and the high bytes are right."""
_OTHER_ORDER = str.maketrans({"B": "L", "L": "B", "N": "B"})
"""The name of the byte order in which the second byte comes first. Native (N) is little-endian."""


def is_deep_colour(file: Image.Image) -> bool:
    """Whether a file that was opened, but not loaded, has three or four channels of 16 bits."""
    return any(_order(tile) for tile in _tiles(file))


def scale_deep_colour(file: Image.Image, path: Path, notes: Notes) -> None:
    """Scale the colours of a loaded file, in place, where they fill fewer than 16 bits: by the rule of deep gray."""
    colours = len(file.getbands()[:3])
    highest = max(high for _, high in file.getextrema()[:colours])  # type: ignore[misc]
    if highest * 256 >= _FULL:
        return
    with open_image_file(path) as content, Image.open(content, formats=(file.format or "",)) as low_bytes:
        low_bytes.tile = [_with_order(tile) for tile in _tiles(low_bytes)]
        try:
            low_bytes.load()
        except ValueError:  # Pillow reads this mode in one order only
            notes.flags.append(f"16 bits per channel, but no value above {_FULL - 1}: nearly black")
        else:
            _scale(file, low_bytes, notes)


def _scale(file: Image.Image, low_bytes: Image.Image, notes: Notes) -> None:
    boxes = [(0, top, file.width, min(top + _STRIP_ROWS, file.height)) for top in range(0, file.height, _STRIP_ROWS)]
    bits = bits_for(max(int(_values(file, low_bytes, box).max()) for box in boxes))
    for box in boxes:
        strip = np.asarray(file.crop(box)).copy()
        strip[..., :3] = np.rint(_values(file, low_bytes, box) / (2**bits - 1) * 255)
        file.paste(Image.fromarray(strip, file.mode), box)
    notes.conversions.append(f"{bits}-bit values, scaled")


def _values(file: Image.Image, low_bytes: Image.Image, box: tuple[int, int, int, int]) -> Any:
    """The 16-bit colours of a strip, [height, width, 3]."""
    high, low = (np.asarray(image.crop(box))[..., :3].astype(np.int64) for image in (file, low_bytes))
    return high * 256 + low


def _tiles(file: Image.Image) -> list[Any]:
    tiles: list[Any] = getattr(file, "tile", [])
    return tiles


def _order(tile: Any) -> str:
    """The raw mode of a tile of 16-bit channels, such as `RGB;16B`; empty for others."""
    raw = tile.args[0] if isinstance(tile.args, tuple) else tile.args
    mode, _, depth = raw.partition(";") if isinstance(raw, str) else ("", "", "")
    return raw if mode in ("RGB", "RGBA", "RGBX") and depth in ("16B", "16L", "16N") else ""


def _with_order(tile: Any) -> Any:
    mode, _, depth = _order(tile).partition(";")
    raw = f"{mode};{depth.translate(_OTHER_ORDER)}"
    return tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
