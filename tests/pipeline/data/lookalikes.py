"""Different pictures that have most of what they show in common, as plots, dials, forms and films do."""

import io

import numpy as np
from PIL import Image, ImageDraw

PX = 96


def dial(i: int) -> Image.Image:
    """The same dial on the same wall; only its needle moves."""
    image = Image.new("RGB", (PX, PX), (235, 235, 230))
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 8, PX - 8, PX - 8), outline=(30, 30, 30), width=4, fill=(250, 250, 250))
    angle = np.random.default_rng(i).uniform(0, np.pi)
    draw.line((48, 48, 48 + 30 * np.cos(angle), 48 - 30 * np.sin(angle)), fill=(180, 20, 20), width=2)
    return _noisy(image, i, 3)


def plot(i: int) -> Image.Image:
    """A curve between the same axes."""
    image = Image.new("RGB", (160, 120), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 10, 150, 105), outline=0)
    for k in range(5):
        draw.text((2, 10 + 20 * k), str(k), fill=0)
    heights = 58 + np.clip(np.cumsum(np.random.default_rng(i).normal(0, 7, 27)), -45, 45)
    draw.line([(21 + 5 * k, y) for k, y in enumerate(heights)], fill=(20, 60, 200), width=2)
    return image


def lamp(i: int) -> Image.Image:
    """A panel on which one of fifteen lamps is on."""
    image = Image.new("RGB", (160, 120), (40, 42, 45))
    draw = ImageDraw.Draw(image)
    for k in range(15):
        x, y = 10 + 30 * (k % 5), 10 + 38 * (k // 5)
        draw.rectangle((x, y, x + 24, y + 30), fill=(220, 210, 60) if k == i % 15 else (70, 70, 75))
    return _noisy(image, i, 2)


def coin(i: int) -> Image.Image:
    """The same disc on black, with a relief of its own."""
    generator = np.random.default_rng(i)
    y, x = np.mgrid[:PX, :PX]
    t, r = np.arctan2(y - 48, x - 48) + generator.uniform(0, 6.28), np.hypot(y - 48, x - 48) / 40
    gray = np.where(r < 1, 150 + 30 * np.sin((5 + i % 4) * t) * (r > 0.3) * (r < 0.85), 5.0)
    return _noisy(Image.fromarray(gray.astype(np.uint8)).convert("RGB"), i, 6)


def frame(i: int) -> Image.Image:
    """A frame of a camera that moves slowly along a wall."""
    wall = np.kron(
        np.random.default_rng(5).integers(0, 200, (8, 40, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8)
    )
    return _noisy(Image.fromarray(wall[:, i : i + 120]), i, 3)


def still(i: int) -> Image.Image:
    """Nothing but noise differs."""
    return _noisy(dial(0), i, 3)


def as_jpeg(image: Image.Image, quality: int = 75) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def _noisy(image: Image.Image, seed: int, deviation: float) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(seed + 1000).normal(0, deviation, np.asarray(image).shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
