"""Values of 10, 12 and 14 bits in files of 16 give a picture that can be seen, in gray and in colour."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decode import DecodeError, decode
from tests.pipeline.data.deep_files import write_png, write_tiff

RAMP = np.linspace(0, 1, 300 * 7).reshape(300, 7)


def ramp(bits: int) -> np.ndarray:
    values: np.ndarray = np.rint(RAMP * (2**bits - 1)).astype(np.uint16)
    return values


def colours(bits: int) -> np.ndarray:
    values = ramp(bits)
    return np.dstack([values, values[::-1], values // 2])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_gray_fills_its_bits(tmp_path: Path, bits: int) -> None:
    Image.fromarray(ramp(bits)).save(tmp_path / "x.png")
    Image.fromarray(ramp(bits)).save(tmp_path / "x.tif")
    for name in ("x.png", "x.tif"):
        decoded = decode(tmp_path / name, background="white")
        expected = np.rint(ramp(bits) / (2**bits - 1) * 255)
        assert np.array_equal(np.asarray(decoded.image)[..., 0], expected)
        assert (f"{bits}-bit values, scaled" in decoded.conversions) == (bits < 16)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["x.png", "alpha.png", "little.tif", "big.tif", "near-infrared.tif"])
def test_colour_fills_its_bits(tmp_path: Path, bits: int, name: str) -> None:
    values = colours(bits)
    file, full = tmp_path / name, np.full_like(values[..., :1], 65535)
    match name:
        case "x.png":
            write_png(file, values)
        case "alpha.png":
            write_png(file, np.dstack([values, full]))
        case "near-infrared.tif":
            write_tiff(file, np.dstack([values, values[..., :1]]))
        case _:
            write_tiff(file, values, order="<" if name == "little.tif" else ">")
    decoded = decode(file, background="white")
    difference = np.asarray(decoded.image).astype(float) - values / (2**bits - 1) * 255
    assert np.abs(difference).max() <= (0.5 if bits < 16 else 1)
    assert (f"{bits}-bit values, scaled" in decoded.conversions) == (bits < 16)


def test_a_deep_image_is_turned_and_keeps_its_profile(tmp_path: Path) -> None:
    write_tiff(tmp_path / "x.tif", colours(12), more={274: 6})
    image = decode(tmp_path / "x.tif", background="white").image
    assert image.size == (300, 7)
    assert np.abs(np.asarray(image) - np.rot90(colours(12), -1) / 4095 * 255).max() <= 0.5


def test_a_mode_that_is_read_in_one_order_only_is_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "x.png", colours(12))
    monkeypatch.setattr("pipeline.data.deep._OTHER_ORDER", str.maketrans({"B": "X"}))
    assert decode(tmp_path / "x.png", background="white").flags == (
        "16 bits per channel, but no value above 16383: nearly black",
    )


def test_planes_of_16_bits_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "x.tif", colours(16), more={284: 2})
    with pytest.raises(DecodeError, match=r"16 bits in separate planes: .* INTERLEAVE=PIXEL"):
        decode(tmp_path / "x.tif", background="white")


HEIGHTS = np.linspace(200, 580, 60).reshape(10, 6).astype(np.float32)


@pytest.mark.parametrize(
    ("void", "more"),
    [
        (-9999, {}),
        (-32768, {}),
        (np.nan, {}),
        (-3.4028234663852886e38, {}),
        (1.70141e38, {}),
        (-1, {42113: b"-1\0"}),
        (0, {42113: b"0 \0"}),
        (np.nan, {42113: b"nan\0"}),
        (-9999, {42113: b"nonsense\0"}),
    ],
)
def test_what_stands_for_no_data_is_left_out_of_the_range(tmp_path: Path, void: float, more: dict[int, bytes]) -> None:
    values = HEIGHTS.copy()
    values[2:4, :3] = void
    write_tiff(tmp_path / "x.tif", values[..., None], more=more)
    decoded = decode(tmp_path / "x.tif", background="white")
    shown = np.asarray(decoded.image)[..., 0]
    expected = np.rint((HEIGHTS.astype(float) - 200) / 380 * 255)
    expected[2:4, :3] = 0
    assert np.array_equal(shown, expected)
    assert decoded.conversions[-2:] == ("scaled from its own range, 200 to 580", "6 pixels without data are black")


def test_no_data_in_whole_numbers_is_left_out_too(tmp_path: Path) -> None:
    values = (ramp(12) + 1).clip(0, 4095)
    values[0] = 65535
    write_tiff(tmp_path / "x.tif", values[..., None], more={42113: b"65535\0"})
    assert decode(tmp_path / "x.tif", background="white").conversions[-2:] == (
        "12-bit values, scaled",
        "7 pixels without data are black",
    )


def test_an_image_without_any_data_is_black(tmp_path: Path) -> None:
    write_tiff(tmp_path / "x.tif", np.full((4, 5, 1), np.nan, np.float32))
    assert decode(tmp_path / "x.tif", background="white").image.getextrema() == ((0, 0),) * 3


def test_infinite_values_are_the_ends_of_the_range(tmp_path: Path) -> None:
    values = HEIGHTS.copy()
    values[0, 0], values[0, 1] = np.inf, -np.inf
    write_tiff(tmp_path / "x.tif", values[..., None])
    shown = np.asarray(decode(tmp_path / "x.tif", background="white").image)[0, :, 0]
    assert shown[:2].tolist() == [255, 0]
