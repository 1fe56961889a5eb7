"""Text that is safe to draw: class and file names are hostile input, and the one font has not every glyph."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_MISSING = "\N{WHITE SQUARE}"


@cache
def font_file() -> Path:
    """Return the font of all pictures: DejaVu Sans as matplotlib ships it, the same on every machine."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file())).get_charmap())


def drawable(text: str, max_chars: int = 24) -> str:
    """Return `text` on one line of at most `max_chars`, with a box for each character that has no glyph.

    Its middle is cut because file names differ at both ends.
    """
    line = " ".join(unicodedata.normalize("NFC", text).split())
    chars = [c for c in line if unicodedata.category(c) not in {"Cc", "Cf"} and not 0xFE00 <= ord(c) <= 0xFE0F]
    line = "".join(c if ord(c) in _glyphs() else _MISSING for c in chars)
    if len(line) <= max_chars:
        return line
    tail = (max_chars - 1) // 2
    return f"{line[: max_chars - 1 - tail]}…{line[len(line) - tail :]}"


def class_labels(classes: Sequence[str], max_chars: int = 24) -> list[str]:
    """Return a drawable label for each class; those that would look the same get their number in front."""
    labels = [drawable(c, max_chars) for c in classes]
    seen = Counter(labels)
    return [f"{i}: {label}" if seen[label] > 1 or not label else label for i, label in enumerate(labels)]
