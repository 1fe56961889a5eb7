"""A small atlas: the real settings with few fonts and alphabets."""

import dataclasses

import pytest

from pretraining.glyphs import Atlas, GlyphSettings, build_atlas
from pretraining.render import RenderSettings
from pretraining.settings import load_settings


@pytest.fixture(scope="session")
def glyph_settings() -> GlyphSettings:
    return load_settings(GlyphSettings, "glyphs")


@pytest.fixture(scope="session")
def drawing() -> RenderSettings:
    return load_settings(RenderSettings, "render")


@pytest.fixture(scope="session")
def atlas(glyph_settings: GlyphSettings) -> Atlas:
    few = dataclasses.replace(
        glyph_settings,
        fonts=["DejaVuSans", "DejaVuSerif", "cmr10"],
        alphabets=["LATIN", "GREEK"],
        symbols=[],
        field_px=32,
    )
    return build_atlas(few)
