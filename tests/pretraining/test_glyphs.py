"""Which glyphs are rendered: no numbers, no blanks, no duplicates."""

import unicodedata
from pathlib import Path

import pytest
import torch

from pretraining.glyphs import Atlas, GlyphSettings, choose_characters, is_number


@pytest.mark.parametrize("char", ["0", "٣", "½", "Ⅷ", "②", "ƻ", "∛"])
def test_numbers_are_recognised(char: str) -> None:
    assert is_number(char)


def test_no_numbers_are_rendered(glyph_settings: GlyphSettings, atlas: Atlas) -> None:
    everything = [*glyph_settings.symbols, [0x21, 0xFFFF]]
    chosen = choose_characters(GlyphSettings(**{**vars(glyph_settings), "symbols": everything}))
    for char in {*chosen, *atlas.characters}:
        assert not unicodedata.category(char).startswith("N"), char
        assert not char.isnumeric() or unicodedata.category(char) == "Lo", char


def test_glyphs_have_ink_and_background(atlas: Atlas) -> None:
    inked = (atlas.fields > 0).flatten(1)
    assert inked.any(1).all()
    assert (~inked).any(1).all()


def test_classes_are_distinct(atlas: Atlas) -> None:
    assert len(set(atlas.characters)) == atlas.num_classes > 40
    assert {"A", "Α"} & set(atlas.characters) == {"A"}, "Latin A and Greek Alpha look the same"
    first = torch.tensor([int((atlas.labels == k).nonzero()[0]) for k in range(atlas.num_classes)])
    pixels = (atlas.fields[first] > 0).flatten(1)
    assert len(torch.unique(pixels, dim=0)) == atlas.num_classes


def test_every_class_has_a_glyph_and_labels_are_sorted(atlas: Atlas) -> None:
    assert torch.bincount(atlas.labels, minlength=atlas.num_classes).min() > 0
    assert torch.equal(atlas.labels, atlas.labels.sort().values)


def test_a_saved_atlas_loads_unchanged(atlas: Atlas, tmp_path: Path) -> None:
    atlas.save(tmp_path)
    loaded = Atlas.load(tmp_path)
    assert torch.equal(loaded.fields, atlas.fields)
    assert torch.equal(loaded.labels, atlas.labels)
    assert (loaded.characters, loaded.fonts) == (atlas.characters, atlas.fonts)
