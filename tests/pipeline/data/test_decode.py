"""The decoder, on files whose correct result is known."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decode import DecodeError, Framing, decode, fit_image
from pipeline.vision import v2
from tests.pipeline.data.heic import heic


def pixels(path: Path, background: str = "white") -> np.ndarray:
    image = decode(path, background=background).image
    assert image.mode == "RGB"
    return np.asarray(image)


def gradient(height: int = 6, width: int = 9) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = gradient()
    stored = {  # how the camera holds the sensor: the inverse of what a viewer must do
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "x.png"), upright)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.array_equal(pixels(tmp_path / "x.png")[..., 0], np.rint(values / 257).astype(np.uint8))


def test_alpha_shows_the_background(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "x.png")
    assert pixels(tmp_path / "x.png", "#102030")[1, 0].tolist() == [0x10, 0x20, 0x30]
    assert pixels(tmp_path / "x.png")[0, 0].tolist() == [200, 0, 0]


def test_palettes_with_transparency_are_resolved(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    image.save(tmp_path / "x.png", transparency=1)
    assert pixels(tmp_path / "x.png")[0].tolist() == [[255, 0, 0], [255, 255, 255]]


def damaged(tmp_path: Path) -> dict[str, Path]:
    good = tmp_path / "good.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(good)
    content = good.read_bytes()
    files = {
        "half.jpg": content[: len(content) // 2],
        "header.jpg": content[:20],
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "page.png": b"<html></html>",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in files}


@pytest.mark.parametrize("name", ["half.jpg", "header.jpg", "empty.jpg", "text.jpg", "page.png"])
def test_what_is_not_an_image_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    with pytest.raises(DecodeError) as error:
        decode(damaged(tmp_path)[name], background="white")
    assert any(word in str(error.value) for word in ("damaged", "not an image", "empty file"))


def test_conversions_are_reported(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    decoded = decode(tmp_path / "x.gif", background="white")
    assert "the first of several frames" in decoded.conversions
    assert np.asarray(decoded.image)[0, 0].tolist() == [255, 0, 0]
    Image.new("L", (4, 4)).save(tmp_path / "gray.png")
    assert decode(tmp_path / "gray.png", background="white").conversions == ()


@pytest.mark.parametrize("how", ["zoom", "pad", "squish"])
@pytest.mark.parametrize("size", [(8, 8), (40, 100), (100, 40), (1, 1), (1, 400)])
def test_every_shape_fits(how: str, size: tuple[int, int]) -> None:
    assert fit_image(Image.new("RGB", size), Framing(32, how, "white")).size == (32, 32)


def test_padding_keeps_all_and_zooming_cuts_the_edges() -> None:
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (0, 0, 10, 30))
    padded = np.asarray(fit_image(image, Framing(30, "pad", "#00ff00")))
    zoomed = np.asarray(fit_image(image, Framing(30, "zoom", "#00ff00")))
    assert padded[0, 0].tolist() == [0, 255, 0]
    assert padded[15, 1, 2] > 200
    assert (zoomed[..., 2] == 0).all()


def test_the_margin_is_background_all_around() -> None:
    fitted = np.asarray(fit_image(Image.new("RGB", (8, 8), "red"), Framing(32, "zoom", "#0000ff", 0.0625)))
    assert fitted.shape == (32, 32, 3)
    blue = fitted[..., 2] == 255
    assert blue.sum() == 32 * 32 - 28 * 28
    assert not blue[2:-2, 2:-2].any()


@pytest.mark.parametrize(
    ("size", "like", "off_by"),
    [
        ((300, 300), v2.InterpolationMode.BILINEAR, 0),
        ((400, 300), v2.InterpolationMode.BILINEAR, 3),
        ((300, 300), v2.InterpolationMode.BICUBIC, 0),
        ((200, 200), v2.InterpolationMode.BICUBIC, 0),
    ],
)
def test_a_negative_margin_is_torchvisions_resize_and_centre_crop(
    size: tuple[int, int], like: v2.InterpolationMode, off_by: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 20, size[0] // 20, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    reference = v2.Compose([v2.Resize(256, like), v2.CenterCrop(224)])(image)
    framing = Framing(224, "zoom", "white", -0.0714, like.value if min(size) > 256 else "bilinear")
    framed = np.asarray(fit_image(image, framing), np.int16)
    difference = np.abs(framed - np.asarray(reference, np.int16)).mean()
    assert difference <= off_by  # a third of a pixel: torchvision rounds the long side, Pillow does not


@pytest.mark.parametrize("size", [(300, 200), (401, 150)])
@pytest.mark.parametrize("px", [None, 8, 1000])
def test_a_jpeg_above_the_limit_is_read_at_half_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], px: int | None
) -> None:
    monkeypatch.setattr("pipeline.data.decode.MAX_PIXELS", 50_000)
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    image = Image.fromarray(np.dstack([x, y, 255 - x]).astype(np.uint8))
    image.save(tmp_path / "x.jpg", quality=95)
    decoded = decode(tmp_path / "x.jpg", background="white", at_least_px=px)
    assert decoded.conversions == ("read at half its size because it has 0 million pixels",)
    scale = 2 if px != 8 else 8
    assert decoded.image.size == (-(-size[0] // scale), -(-size[1] // scale))
    expected = np.asarray(image.resize(decoded.image.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(expected - np.asarray(decoded.image)).mean() < 3


def test_an_image_too_large_even_at_half_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.decode.MAX_PIXELS", 50_000)
    Image.new("RGB", (300, 200)).save(tmp_path / "progressive.jpg", progressive=True)
    Image.new("RGB", (300, 200)).save(tmp_path / "x.png")
    monkeypatch.setattr("pipeline.data.decode.MAX_JPEG_PIXELS", 65_000)
    Image.new("RGB", (300, 220)).save(tmp_path / "larger.jpg")
    for name in ("progressive.jpg", "x.png", "larger.jpg"):
        with pytest.raises(DecodeError, match="million pixels, more than"):
            decode(tmp_path / name, background="white")


RED, GREEN, BLUE = (220, 40, 40), (40, 200, 40), (40, 40, 220)


@pytest.mark.parametrize(
    ("turned", "size", "corners"),
    [(False, (64, 48), [GREEN, RED, GREEN, BLUE]), (True, (64, 64), [RED, BLUE, GREEN, GREEN])],
)
def test_photos_of_phones_are_read_upright(
    tmp_path: Path, turned: bool, size: tuple[int, int], corners: list[tuple[int, int, int]]
) -> None:
    (tmp_path / "x.heic").write_bytes(heic(turned=turned))
    decoded = decode(tmp_path / "x.heic", background="white")
    assert decoded.image.size == size
    assert decoded.conversions == decoded.flags == ()
    seen = np.asarray(decoded.image)[[2, 2, -2, -2], [2, -2, 2, -2]].astype(int)
    assert np.abs(seen - corners).max() < 8


def test_without_the_plugin_a_photo_of_a_phone_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "x.heic").write_bytes(heic())
    with pytest.raises(DecodeError, match="pip install pi-heif"):
        decode(tmp_path / "x.heic", background="white")
