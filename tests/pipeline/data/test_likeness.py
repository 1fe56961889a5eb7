"""Copies are alike in every part, after any change that leaves them the same picture; other pictures are not."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipeline.data.facts import THUMB_BYTES, shrink
from pipeline.data.likeness import may_be_alike, similarity
from tests.pipeline.data.lookalikes import as_jpeg, coin, dial, lamp, plot

AT_LEAST = 0.6


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A random picture with as much detail as photos have."""
    generator = np.random.default_rng(seed)
    pixels = np.zeros((size[1], size[0], 3))
    for blocks, strength in ((4, 90), (10, 40), (30, 15)):
        coarse = generator.uniform(-strength, strength, (blocks, blocks, 3)).astype(np.float32)
        layers = [Image.fromarray(coarse[..., k]).resize(size, Image.Resampling.BICUBIC) for k in range(3)]
        pixels += np.stack([np.asarray(x) for x in layers], axis=2)
    return Image.fromarray((pixels + 120).clip(0, 255).astype(np.uint8))


def shrunk(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.frombuffer(shrink(x.convert("RGB")), np.uint8) for x in images])


def of_pairs(images: list[Image.Image]) -> np.ndarray:
    first, second = np.triu_indices(len(images), 1)
    thumbs = shrunk(images)
    return similarity(thumbs[first], thumbs[second])


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg 75": as_jpeg,
    "jpeg 30": lambda x: as_jpeg(x, 30),
    "half the size": lambda x: x.resize((x.width // 2, x.height // 2), Image.Resampling.BICUBIC),
    "half and back": lambda x: x.reduce(2).resize(x.size, Image.Resampling.BICUBIC),
    "brighter": lambda x: ImageEnhance.Brightness(x).enhance(1.1),
    "less contrast": lambda x: ImageEnhance.Contrast(x).enhance(0.9),
    "gray": lambda x: x.convert("L"),
    "cropped": lambda x: x.crop((2, 1, x.width - 2, x.height - 1)),
    "shifted": lambda x: x.crop((3, 0, x.width, x.height)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [(160, 120), (48, 40)])
def test_copies_are_alike_whatever_was_done_to_them(change: str, size: tuple[int, int]) -> None:
    images = [scene(i, size) for i in range(20)]
    if size[0] < 100 and change in ("cropped", "shifted"):
        pytest.skip("a pixel is much of so small an image")
    a, b = shrunk(images), shrunk([CHANGES[change](x) for x in images])
    assert may_be_alike(a, b).all()
    assert np.mean(similarity(a, b) >= AT_LEAST) >= 0.9
    assert np.mean(similarity(b, a) >= AT_LEAST) >= 0.9


@pytest.mark.parametrize("draw", [plot, lamp])
def test_pictures_that_share_most_of_what_they_show_are_not_alike(draw: Callable[[int], Image.Image]) -> None:
    alike = of_pairs([draw(i) for i in range(15)])
    assert np.mean(alike >= AT_LEAST) <= 0.03


@pytest.mark.parametrize("draw", [dial, coin])
def test_few_are_alike_where_what_differs_may_coincide(draw: Callable[[int], Image.Image]) -> None:
    alike = of_pairs([draw(i) for i in range(20)])
    assert 0 < np.mean(alike >= AT_LEAST) < 0.2


def test_colours_that_contradict_each_other_are_not_alike() -> None:
    red, green = (Image.new("RGB", (120, 120), (90, 90, 95)) for _ in range(2))
    red.paste((200, 60, 60), (30, 30, 90, 90))
    green.paste((60, 130, 60), (30, 30, 90, 90))  # as bright as the red
    a, b, gray = (shrunk([x]) for x in (red, green, red.convert("L")))
    assert similarity(a, b)[0] <= 0
    assert similarity(a, a)[0] == 1
    assert similarity(a, gray)[0] > 0.9


def test_images_of_one_colour_do_not_fail() -> None:
    flat = np.zeros((2, THUMB_BYTES), np.uint8)
    assert np.isfinite(similarity(flat, flat)).all()
    assert may_be_alike(flat, flat).all()
