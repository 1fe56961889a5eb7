"""The views of an image that test-time augmentation uses beside the plain one: a function for each mode.

They depend on the file, the settings and the policy; only `augment` is random, and follows from its seed. A view that
would show exactly what the plain image shows is left out, so an image may have no views.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

from PIL import Image

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing, Held, add_margin, decode, decode_framed, filter_for, fit_inner
from pipeline.settings import TtaEvaluate

Seed = tuple[int | str, ...]
Views = list[Image.Image]

MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


def views_of(file: Path, tta: TtaEvaluate, policy: Policy, *, seed: Seed, held: Held | None = None) -> Views:
    """The views of an image file, each of the size that the network gets. Raises DecodeError.

    What `held` has of the file is not decoded again.
    """
    return _MODES[tta.mode](file, tta, policy, seed, held)


def canvas(image: Image.Image, framing: Framing, zoom: float) -> Image.Image:
    """The image framed `zoom` times larger than the network's input, with nothing cut off."""
    larger = replace(framing, image_size=round(zoom * framing.image_size))
    if framing.fit != "zoom":
        return add_margin(fit_inner(image, larger), larger)
    scale = larger.inner_px / min(image.size)
    width, height = (max(larger.inner_px, round(side * scale)) for side in image.size)
    return add_margin(image.resize((width, height), filter_for(scale, framing)), larger)


def _decode_canvas(file: Path, framing: Framing, zoom: float, held: Held | None) -> Image.Image:
    inner_px = replace(framing, image_size=round(zoom * framing.image_size)).inner_px
    image = decode(file, background=framing.background, at_least_px=inner_px, held=held).image
    return canvas(image, framing, zoom)


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """The starts of evenly spaced windows that cover `length` pixels; neighbours share at least `overlap`."""
    stride = max(1, math.floor(window * (1 - overlap)))
    steps = math.ceil((length - window) / stride)
    return [round(i * (length - window) / steps) for i in range(steps + 1)] if steps else [0]


def _random(file: Path, tta: TtaEvaluate, policy: Policy, seed: Seed, held: Held | None) -> Views:
    """Random views, as in training; none without augmentation."""
    assert tta.views is not None
    if not policy.steps:
        return []
    base = policy.decode_base(file, held)
    return [policy.view(base, seed=(*seed, view)) for view in range(tta.views)]


def _corners_and_centre(file: Path, tta: TtaEvaluate, policy: Policy, _: Seed, held: Held | None) -> Views:
    """Five crops, and their mirror images if training mirrors too; at zoom 1 the centre is the plain image."""
    assert tta.zoom is not None
    whole, size = _decode_canvas(file, policy.framing, tta.zoom, held), policy.framing.image_size
    right, bottom = whole.width - size, whole.height - size
    centre = _crop(whole, right // 2, bottom // 2, size) if tta.zoom > 1 else decode_framed(file, policy.framing, held)
    corners = sorted({(0, 0), (right, 0), (0, bottom), (right, bottom)}) if right or bottom else []
    crops = [centre, *(_crop(whole, x, y, size) for x, y in corners)]
    mirrored = [crop.transpose(MIRROR) for crop in crops] if policy.flip != "none" else []
    return [*(crops if tta.zoom > 1 else crops[1:]), *mirrored]


def _windows(file: Path, tta: TtaEvaluate, policy: Policy, _: Seed, held: Held | None) -> Views:
    """Windows over the whole image; none if the network's input shows all of it."""
    assert tta.zoom is not None
    assert tta.overlap is not None
    whole, size = _decode_canvas(file, policy.framing, tta.zoom, held), policy.framing.image_size
    if whole.size == (size, size):
        return []
    down, across = (window_starts(length, size, tta.overlap) for length in (whole.height, whole.width))
    return [_crop(whole, x, y, size) for y, x in product(down, across)]


def _scaled(file: Path, tta: TtaEvaluate, policy: Policy, _: Seed, held: Held | None) -> Views:
    """The image framed at other sizes."""
    assert tta.scales is not None
    sizes = view_sizes(tta, policy.framing.image_size)
    return [decode_framed(file, replace(policy.framing, image_size=size), held) for size in sizes]


def _mirrored(file: Path, tta: TtaEvaluate, policy: Policy, _: Seed, held: Held | None) -> Views:
    """The mirror image, or, for `dihedral`, all seven flips and quarter turns."""
    del tta
    plain = decode_framed(file, policy.framing, held)
    ways = list(Image.Transpose) if policy.flip == "dihedral" else [MIRROR]
    return [plain.transpose(way) for way in ways]


def view_sizes(tta: TtaEvaluate, image_size: int) -> list[int]:
    """The sizes of the views, in pixels."""
    return [round(scale * image_size) for scale in tta.scales] if tta.scales is not None else [image_size]


def _crop(whole: Image.Image, x: int, y: int, size: int) -> Image.Image:
    return whole.crop((x, y, x + size, y + size))


_MODES: dict[str, Callable[[Path, TtaEvaluate, Policy, Seed, Held | None], Views]] = {
    "augment": _random,
    "multi_crop": _corners_and_centre,
    "sliding_window": _windows,
    "multi_scale": _scaled,
    "flip": _mirrored,
}
