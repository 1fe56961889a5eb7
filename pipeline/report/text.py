"""Text that is safe to draw: class and file names may hold anything, and the font lacks many glyphs."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_MISSING = "\N{WHITE SQUARE}"


@cache
def font_file() -> Path:
    """Return the font of all pictures: DejaVu Sans from matplotlib, which is the same on every machine."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file())).get_charmap())


def drawable(text: str, max_chars: int = 24) -> str:
    """Return `text` on one line of at most `max_chars`, with a box for each character that has no glyph.

    A long text loses its middle, because file names differ at both ends.
    """
    line = " ".join(unicodedata.normalize("NFC", text).split())
    chars = [c for c in line if unicodedata.category(c) not in {"Cc", "Cf"} and not 0xFE00 <= ord(c) <= 0xFE0F]
    line = "".join(c if ord(c) in _glyphs() else _MISSING for c in chars)
    if len(line) <= max_chars:
        return line
    tail = (max_chars - 1) // 2
    return f"{line[: max_chars - 1 - tail]}…{line[len(line) - tail :]}"


def class_labels(classes: Sequence[str], max_chars: int = 24) -> list[str]:
    """Return a drawable label for each class; labels that would look the same are preceded by the class's number."""
    labels = [drawable(c, max_chars) for c in classes]
    seen = Counter(labels)
    return [f"{i}: {label}" if seen[label] > 1 or not label else label for i, label in enumerate(labels)]


def counted(n: float, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as `1 cycle` or `3 cycles`; `plural` is for nouns that take no `s`."""
    return f"{n:,g} {noun if n == 1 else plural or f'{noun}s'}"
