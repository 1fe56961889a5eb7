"""The atlas of glyphs: which characters of which fonts, each as a signed distance field.

A signed distance field holds, per pixel, the distance to the outline, positive inside the ink. A threshold other than
zero gives thicker or thinner strokes, and the field can be bent and scaled without jagged edges.
"""

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pipeline.files import write_text
from pipeline.model.tensors import read_tensors, save_tensors

NUMBER_CATEGORIES = ("Nd", "Nl", "No")
NUMBER_WORDS = {
    *("DIGIT", "NUMBER", "NUMERAL", "ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN"),
    *("EIGHT", "NINE", "TEN", "HUNDRED", "THOUSAND", "TONE", "SECOND", "THIRD", "FOURTH", "CUBE"),
}
"""Words in the Unicode names of characters that show a number (U+01BB is LATIN LETTER TWO WITH STROKE)."""

_OVERSAMPLING = 2
_TEX_FONT = "cm"
"""Fonts with this prefix use TeX's own encodings, which agree with Unicode only on A-Z and a-z."""


@dataclass(frozen=True, kw_only=True)
class GlyphSettings:
    """Which glyphs go into the atlas."""

    fonts: list[str]
    """Files in matplotlib's font folder, without `.ttf`. Characters are compared in the first font that has them."""
    alphabets: list[str]
    """First words of Unicode names of letters (`LATIN` LETTER A)."""
    symbols: list[list[int]]
    """Ranges of symbols, first and last code point."""
    max_similarity: float
    """A character whose correlation with an earlier one is higher is left out (A and Alpha are one class)."""
    field_px: int
    """Side of a distance field in pixels."""
    margin_px: int
    """Space around the ink on each side of a distance field, in pixels."""


@dataclass(frozen=True)
class Atlas:
    """All glyphs: one for each class and each font that has the character."""

    fields: Tensor
    """Signed distances in pixels, [glyphs, field_px, field_px], sorted by class."""
    labels: Tensor
    """Class index of each glyph."""
    characters: list[str]
    """The character of each class."""
    fonts: list[str]
    """The font of each glyph."""

    @property
    def num_classes(self) -> int:
        return len(self.characters)

    def save(self, folder: Path) -> None:
        """Write `atlas.safetensors` (half precision) and `atlas.json` into `folder`."""
        save_tensors({"fields": self.fields, "labels": self.labels}, folder / "atlas.safetensors", half=True)
        described = {"characters": self.characters, "fonts": self.fonts}
        write_text(folder / "atlas.json", json.dumps(described, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Atlas":
        """Read an atlas that `save` wrote."""
        tensors = read_tensors(folder / "atlas.safetensors")
        described = json.loads((folder / "atlas.json").read_text())
        return cls(tensors["fields"], tensors["labels"], **described)


def build_atlas(settings: GlyphSettings) -> Atlas:
    """Render every glyph. Blank glyphs and characters that look like an earlier one are left out."""
    paths = {name: font_path(name) for name in settings.fonts}
    charsets = {name: _charset(path) for name, path in paths.items()}
    available = set().union(*charsets.values())
    drawn: dict[str, list[tuple[str, Tensor]]] = {}
    seen: list[Tensor] = []
    for char in choose_characters(settings):
        if char not in available:
            continue
        inks = [(n, _draw(char, paths[n], settings)) for n in settings.fonts if char in charsets[n]]
        glyphs = [(name, ink) for name, ink in inks if ink is not None]
        if glyphs and _is_new(appearance := _appearance(glyphs[0][1]), seen, settings.max_similarity):
            seen.append(appearance)
            drawn[char] = _distinct(glyphs)
    flat = [(label, name, ink) for label, glyphs in enumerate(drawn.values()) for name, ink in glyphs]
    return Atlas(
        fields=torch.stack([_distance_field(ink) for _, _, ink in flat]).half().float(),
        labels=torch.tensor([label for label, _, _ in flat]),
        characters=list(drawn),
        fonts=[name for _, name, _ in flat],
    )


def font_path(name: str) -> Path:
    """Return the path of a font that matplotlib ships."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def is_number(char: str) -> bool:
    """Whether the character is a digit, another number, or a letter or symbol named after a number."""
    words = set(unicodedata.name(char, "").replace("-", " ").split())
    return unicodedata.category(char) in NUMBER_CATEGORIES or bool(words & NUMBER_WORDS)


def choose_characters(settings: GlyphSettings) -> list[str]:
    """List plain letters of the alphabets, then the symbols; no numbers and no accented letters."""
    plane = (chr(code) for code in range(0x21, 0x10000))
    chosen = [c for c in plane if not is_number(c) and (_is_letter(c, settings) or _is_symbol(c, settings))]
    return sorted(chosen, key=lambda char: _position(char, settings))


def _is_letter(char: str, settings: GlyphSettings) -> bool:
    words = unicodedata.name(char, "").split()
    if unicodedata.category(char) not in ("Lu", "Ll", "Lo") or not words or words[0] not in settings.alphabets:
        return False
    return not {"WITH", "LIGATURE", "DIGRAPH", "FORM"} & set(words)


def _is_symbol(char: str, settings: GlyphSettings) -> bool:
    return any(first <= ord(char) <= last for first, last in settings.symbols)


def _position(char: str, settings: GlyphSettings) -> tuple[int, int]:
    """Sort key: alphabets in their order, then symbols; by code point within each."""
    alphabet = unicodedata.name(char, "").split(" ")[0]
    last = len(settings.alphabets)
    return (settings.alphabets.index(alphabet) if _is_letter(char, settings) else last), ord(char)


def _charset(path: Path) -> set[str]:
    with TTFont(path) as font:
        codes: Iterable[int] = font.getBestCmap()
        chars = {chr(code) for code in codes}
    is_tex = path.name.startswith(_TEX_FONT)
    return {c for c in chars if c.isascii() and c.isalpha()} if is_tex else chars


def _draw(char: str, path: Path, settings: GlyphSettings) -> Tensor | None:
    """Render the ink as a boolean image whose longer side fills the space; None for a blank glyph."""
    side = settings.field_px * _OVERSAMPLING
    room = side - 2 * settings.margin_px * _OVERSAMPLING
    left, top, right, bottom = ImageFont.truetype(path, side).getbbox(char)
    longest = max(right - left, bottom - top)
    if longest <= 0:
        return None
    font = ImageFont.truetype(path, side * room / longest)
    left, top, right, bottom = font.getbbox(char)
    image = Image.new("L", (side, side))
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(image).text(corner, char, fill=255, font=font)
    ink = torch.from_numpy(np.array(image) >= 128)
    return ink if ink.any() else None


def _appearance(ink: Tensor) -> Tensor:
    """Blur and normalise the ink, so that the dot product of two results is their correlation."""
    blurred = torch.nn.functional.avg_pool2d(ink[None, None].float(), kernel_size=8, stride=4, padding=4)
    centred = (blurred - blurred.mean()).flatten()
    appearance: Tensor = centred / centred.norm().clamp_min(1e-6)
    return appearance


def _is_new(appearance: Tensor, seen: list[Tensor], max_similarity: float) -> bool:
    return not seen or float((torch.stack(seen) @ appearance).max()) <= max_similarity


def _distinct(glyphs: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Drop glyphs that are identical to the pixel in several fonts."""
    return list({ink.numpy().tobytes(): (name, ink) for name, ink in reversed(glyphs)}.values())[::-1]


def _distance_field(ink: Tensor) -> Tensor:
    inside, outside = _distance_to(~ink), _distance_to(ink)
    field = (inside - outside)[None, None] / _OVERSAMPLING
    return torch.nn.functional.avg_pool2d(field, _OVERSAMPLING)[0, 0]


def _distance_to(mask: Tensor) -> Tensor:
    """Euclidean distance from every pixel to the nearest one in `mask`: along columns, then along rows."""
    positions = torch.arange(mask.shape[0], dtype=torch.float32)
    squared = (positions[:, None] - positions[None, :]) ** 2
    beyond = torch.where(mask, 0.0, 2.0 * squared.max())
    columns = (squared[:, :, None] + beyond[None, :, :]).amin(1)
    distances: Tensor = (squared[None, :, :] + columns[:, None, :]).amin(2).sqrt()
    return distances
