"""Colours, compared with formulas."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decode import DecodedImage, decode
from tests.pipeline.data.wide_gamut import to_srgb, wide_profile

PATCHES = np.random.default_rng(0).integers(40, 216, (16, 16, 3), dtype=np.uint8)


def read(path: Path) -> DecodedImage:
    return decode(path, background="white")


def test_a_wide_gamut_becomes_srgb_by_the_formula(tmp_path: Path) -> None:
    Image.fromarray(PATCHES).save(tmp_path / "x.png", icc_profile=wide_profile())
    decoded = read(tmp_path / "x.png")
    assert "colour profile 'Wide test gamut' to sRGB" in decoded.conversions
    assert np.abs(np.asarray(decoded.image) - to_srgb(PATCHES)).max() <= 2
    assert np.abs(PATCHES - to_srgb(PATCHES)).max() > 20


def test_alpha_survives_a_profile(tmp_path: Path) -> None:
    rgba = np.dstack([PATCHES, np.full((16, 16), 255, np.uint8)])
    rgba[:8, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "x.png", icc_profile=wide_profile())
    pixels = np.asarray(read(tmp_path / "x.png").image)
    assert (pixels[:8] == 255).all()
    assert np.abs(pixels[8:] - to_srgb(PATCHES[8:])).max() <= 2


@pytest.mark.parametrize("profile", [b"rubbish", wide_profile()[:200]])
def test_a_damaged_profile_is_ignored_and_flagged(tmp_path: Path, profile: bytes) -> None:
    Image.fromarray(PATCHES).save(tmp_path / "x.png", icc_profile=profile)
    decoded = read(tmp_path / "x.png")
    assert "colour profile is damaged" in decoded.flags[0]
    assert np.array_equal(np.asarray(decoded.image), PATCHES)


def test_a_profile_for_other_channels_is_ignored_and_flagged(tmp_path: Path) -> None:
    Image.fromarray(PATCHES[..., 0]).save(tmp_path / "x.png", icc_profile=wide_profile())
    assert "does not fit" in read(tmp_path / "x.png").flags[0]


def test_floats_and_deep_integers_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    values = np.linspace(-3, 7, 600 * 4, dtype=np.float32).reshape(600, 4)
    Image.fromarray(values).save(tmp_path / "f.tif")
    Image.fromarray((values * 1e8).astype(np.int32)).save(tmp_path / "i.tif")
    for name in ("f.tif", "i.tif"):
        decoded = read(tmp_path / name)
        assert np.array_equal(np.asarray(decoded.image)[..., 0], np.rint((values.astype(float) + 3) * 25.5))
        assert any("own range" in c for c in decoded.conversions)


def test_nan_and_infinity_are_handled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, np.nan], [np.inf, 5]], np.float32)).save(tmp_path / "x.tif")
    assert np.asarray(read(tmp_path / "x.tif").image)[..., 0].tolist() == [[0, 0], [255, 255]]


def test_a_transparent_colour_of_gray_is_resolved(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 100]], np.uint8)).save(tmp_path / "x.png", transparency=0)
    assert np.asarray(read(tmp_path / "x.png").image)[0, :, 0].tolist() == [255, 100]
