"""Training images, rendered from the atlas. Each is a pure function of (seed, index), whatever the order or batch.

Run as a stage, this module builds the atlas and writes a contact sheet of examples into its folder.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pretraining.glyphs import Atlas, GlyphSettings, build_atlas
from pretraining.settings import ATLAS, load_settings

Uint64 = npt.NDArray[np.uint64]

_CONTROL_POINTS = 4
"""Points per side of the grid whose random displacements bend a glyph."""
_NUM_DRAWS = 24 + 2 * _CONTROL_POINTS**2
_SHEET = (16, 24)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NUM_GREYS = 16
"""Grey levels of a coarse sensor, as in the 8x8 digits, which were made by counting ink pixels in 4x4 blocks."""


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """How much the renderings vary. A share is a probability; other values are the largest change."""

    image_size: int
    """Side of the images in pixels."""
    canvas_px: int
    """Side of the canvas on which a glyph is rendered, before the sensor's resolution is simulated."""
    min_resolution_px: int
    """Lowest sensor resolution in pixels; sampled log-uniformly from here to `image_size`."""
    sharp_share: float
    """Share of images at the full resolution of `image_size`."""
    coarse_grey_share: float
    """Share of images with 16 grey levels instead of 256."""
    rotation_deg: float
    shear: float
    scale: list[float]
    """Smallest and largest size of a glyph, as a factor of its normal size."""
    squeeze: float
    """Largest logarithm of the ratio of horizontal to vertical scale."""
    shift: float
    """Largest shift, as a share of the image's side."""
    bend: float
    """Largest displacement of the control points, as a share of the image's side."""
    thickness_px: list[float]
    """Smallest and largest width added to the ink on every side, in pixels of the distance field."""
    softness_px: float
    """Largest width of an edge, in pixels of the distance field."""
    full_contrast_share: float
    """Share of pure black and white."""
    inverted_share: float
    """Share of bright glyphs on a dark background."""
    colour_share: float
    """Share of coloured images."""
    noise: float
    """Largest standard deviation of the sensor's noise; white is 1."""
    noisy_share: float


def render(atlas: Atlas, settings: RenderSettings, *, seed: int, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Render the images with these indices: uint8 [N, 3, image_size, image_size], and their classes [N]."""
    draws = _uniform(seed, indices, _NUM_DRAWS)
    glyphs, labels = _choose_glyphs(atlas, draws[:, 0], draws[:, 1])
    canvas = F.grid_sample(
        atlas.fields[glyphs][:, None],
        _sampling_grid(draws[:, 2:8], draws[:, 24:], settings),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[:, 0]
    thickness = _between(draws[:, 8], *settings.thickness_px)
    width = _between(draws[:, 9], 0.5, settings.softness_px)
    ink = ((canvas + _per_image(thickness)) / _per_image(width) + 0.5).clamp(0.0, 1.0)
    seen = _sense(ink, draws[:, 10:14], settings, seed=seed, indices=indices)
    images = _tint(seen, draws[:, 14:24], settings)
    return (images * 255.0).round().to(torch.uint8), labels


def _choose_glyphs(atlas: Atlas, which_class: Tensor, which_font: Tensor) -> tuple[Tensor, Tensor]:
    """Choose a class uniformly, then one of its glyphs uniformly."""
    counts = torch.bincount(atlas.labels, minlength=atlas.num_classes)
    first = counts.cumsum(0) - counts
    labels = (which_class * atlas.num_classes).long()
    return first[labels] + (which_font * counts[labels]).long(), labels


def _sampling_grid(pose: Tensor, bends: Tensor, settings: RenderSettings) -> Tensor:
    """Map each pixel of the canvas to a point of the distance field: a smooth bend and an affine map."""
    angle = math.radians(settings.rotation_deg) * _signed(pose[:, 0])
    shear = settings.shear * _signed(pose[:, 1])
    scale = _between(pose[:, 2], *settings.scale)
    squeeze = (settings.squeeze / 2 * _signed(pose[:, 3])).exp()
    cos, sin = angle.cos() / scale, angle.sin() / scale
    across, down = squeeze, 1 / squeeze
    rows = [across * cos, across * (sin + shear * cos), -down * sin, down * (cos - shear * sin)]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 2)
    size = settings.canvas_px
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    plane = torch.stack([axis[None, :].expand(size, size), axis[:, None].expand(size, size)])
    moved = plane[None] + 2 * settings.shift * _signed(pose[:, 4:6])[:, :, None, None]
    control = 2 * settings.bend * _signed(bends).view(-1, 2, _CONTROL_POINTS, _CONTROL_POINTS)
    spread = _upsampling(_CONTROL_POINTS, size)
    moved = moved + spread @ control @ spread.T
    x, y = moved[:, 0], moved[:, 1]
    a, b, c, d = (_per_image(matrix[:, i, j]) for i in (0, 1) for j in (0, 1))
    return torch.stack([a * x + b * y, c * x + d * y], dim=-1)


def _sense(ink: Tensor, draws: Tensor, settings: RenderSettings, *, seed: int, indices: Tensor) -> Tensor:
    """Simulate a sensor of few pixels: average the ink, add noise, quantise, enlarge to `image_size`."""
    size, least = settings.image_size, settings.min_resolution_px
    sharp = draws[:, 0] < settings.sharp_share
    coarse = (least * (size / least) ** draws[:, 1]).floor().long()
    resolution = torch.where(sharp, size, coarse.clamp(least, size))
    down, up = (matrices[resolution - least] for matrices in _sensors(settings.canvas_px, least, size))
    seen = down @ ink @ down.transpose(1, 2)
    noisy = (draws[:, 2] < settings.noisy_share).nonzero()[:, 0]
    strength = settings.noise * draws[noisy, 2] / settings.noisy_share
    seen[noisy] += _per_image(strength) * _noise(seed + 1, indices[noisy], size)
    levels = _per_image(torch.where(draws[:, 3] < settings.coarse_grey_share, float(_NUM_GREYS), 255.0))
    seen = (seen.clamp(0.0, 1.0) * levels).round() / levels
    return (up @ seen @ up.transpose(1, 2)).clamp(0.0, 1.0)


def _tint(ink: Tensor, draws: Tensor, settings: RenderSettings) -> Tensor:
    """Colour ink and background, in grey or in colour, either of them brighter: [N, 3, H, W]."""
    full = draws[:, 0] < settings.full_contrast_share
    dark = torch.where(full, 0.0, 0.35 * draws[:, 1])
    bright = torch.where(full, 1.0, 1.0 - 0.35 * draws[:, 2])
    inverted = draws[:, 3] < settings.inverted_share
    front, back = torch.where(inverted, bright, dark), torch.where(inverted, dark, bright)
    colourful = torch.where(draws[:, 9] < settings.colour_share, 0.5, 0.0)[:, None]
    fore = (front[:, None] + colourful * _signed(draws[:, 4:7])).clamp(0.0, 1.0)[:, :, None, None]
    ground_draws = torch.stack([draws[:, 7], draws[:, 8], (draws[:, 7] + draws[:, 8]) % 1.0], dim=1)
    ground = (back[:, None] + colourful * _signed(ground_draws)).clamp(0.0, 1.0)[:, :, None, None]
    return ground + (fore - ground) * ink[:, None]


@lru_cache
def _sensors(canvas: int, least: int, size: int) -> tuple[Tensor, Tensor]:
    """For each resolution from `least` to `size`, the matrices that average the canvas and enlarge the result.

    Both are padded with zeros to `size` sensor pixels.
    """
    resolutions = range(least, size + 1)
    down = [F.pad(_averaging(canvas, k), (0, 0, 0, size - k)) for k in resolutions]
    up = [F.pad(_upsampling(k, size), (0, size - k)) for k in resolutions]
    return torch.stack(down), torch.stack(up)


def _averaging(size: int, fewer: int) -> Tensor:
    """The matrix [fewer, size] that averages equal boxes; a pixel across an edge is shared by area."""
    edges = torch.arange(fewer + 1) * size / fewer
    pixel = torch.arange(size)
    overlap = torch.minimum(edges[1:, None], pixel + 1.0) - torch.maximum(edges[:-1, None], pixel * 1.0)
    return overlap.clamp_min(0.0) * fewer / size


@lru_cache
def _upsampling(size: int, more: int) -> Tensor:
    """The matrix [more, size] of bicubic upsampling, with Pillow's kernel."""
    return F.interpolate(torch.eye(size)[None, None], (more, size), mode="bicubic", antialias=True)[0, 0]


def _signed(draws: Tensor) -> Tensor:
    return 2.0 * draws - 1.0


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draws


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None]


def _uniform(seed: int, indices: Tensor, num_draws: int) -> Tensor:
    """Uniform numbers in [0, 1): [N, num_draws]."""
    bits = _hashes(seed, indices, num_draws) >> np.uint64(40)
    return torch.from_numpy(bits.astype(np.float32)) * 2.0**-24


def _noise(seed: int, indices: Tensor, size: int) -> Tensor:
    """Triangular noise of standard deviation 1, the sum of two uniform numbers per hash: [N, size, size]."""
    halves = _hashes(seed, indices, size * size).view(np.uint32).astype(np.float32)
    return (torch.from_numpy(halves).view(-1, size, size, 2).sum(-1) * 2.0**-32 - 1.0) * math.sqrt(6)


def _hashes(seed: int, indices: Tensor, num_draws: int) -> Uint64:
    """Random bits, a hash of (seed, index, draw), so that the order does not matter: [N, num_draws]."""
    stream = _mix(np.array([seed], dtype=np.uint64))
    image = _mix(stream + indices.numpy().astype(np.uint64))
    return _mix(image[:, None] + np.arange(num_draws, dtype=np.uint64)[None, :] * _GOLDEN)


def _mix(values: Uint64) -> Uint64:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def sheet(images: Tensor, *, columns: int) -> Image.Image:
    """Arrange uint8 images [N, 3, H, W] on a contact sheet."""
    rows, (height, width) = len(images) // columns, images.shape[2:]
    tiles = images[: rows * columns].view(rows, columns, 3, height, width)
    return Image.fromarray(tiles.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3).numpy())


def main() -> None:
    """Build the atlas and write a sheet of examples."""
    atlas = build_atlas(load_settings(GlyphSettings, "glyphs"))
    ATLAS.mkdir(exist_ok=True)
    atlas.save(ATLAS)
    settings = load_settings(RenderSettings, "render")
    images, _ = render(atlas, settings, seed=0, indices=torch.arange(_SHEET[0] * _SHEET[1]))
    sheet(images, columns=_SHEET[1]).save(ATLAS / "sheet.png")
    print(f"{atlas.num_classes} classes, {len(atlas.labels)} glyphs; examples in {ATLAS / 'sheet.png'}")


if __name__ == "__main__":
    main()
