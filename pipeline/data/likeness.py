"""How alike two images are where they differ most, when both are shrunk to 32x32.

Images of one set often share most of what they show: the axes of a plot, the dial of a gauge, a black background. On
average over the whole image such images are alike, whatever they show. So the measure is local: an image is cut into
blocks, and the block that agrees least counts. A copy that was saved again, resized, slightly cropped, brightened or
turned gray agrees in every block, once a shift, a scale and a change of tone have been taken out.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.facts import COLOUR_PX, THUMB_PX

Thumbs = NDArray[np.uint8]
"""[N, 1153], as in `Facts.thumb`."""
_Pictures = NDArray[np.float32]
"""[N, 32, 32], gray levels of 255."""
_Values = NDArray[np.float32]
"""[N]."""

_BLOCK_PX = 4
_NOISE = 6.0
"""Gray levels, standard deviation: what compression adds to a flat block, so it does not count as a difference."""
_STEPS = 2
"""Each step corrects the shift and the scale that remain (Lucas and Kanade 1981)."""
_MAX_SHIFT = 1.5
"""Pixels of the thumbnail."""
_MAX_SCALE = 0.1
_COLOUR = 20.0
"""Levels of 255 that colour may differ in a cell, and in addition the share `_COLOUR_SHARE` of how colourful it is."""
_COLOUR_SHARE = 0.25
_GRAY = 4.0
"""An image whose colour differences are all below this is gray: a gray copy of an image in colour is a copy."""
_GRAY_BYTES = THUMB_PX * THUMB_PX
_SURE = 0.9
_FINE = 64
"""Parts of a gray level."""
_ROUGH_PX = 8
_ROUGH_CORRELATION = 0.9
_COORDINATES = np.arange(THUMB_PX, dtype=np.float32) - (THUMB_PX - 1) / 2
_SOFTEN = np.exp(-((_COORDINATES[:, None] - _COORDINATES) ** 2) / 2).astype(np.float32)
"""Blurs rows by a Gaussian of one pixel."""
_SOFTEN /= _SOFTEN.sum(axis=1, keepdims=True)


def similarity(a: Thumbs, b: Thumbs) -> _Values:
    """Return how alike the least similar blocks of each pair are: 1 for copies, 0 or less for different content.

    After alignment, the similarity of a block is 1 - d / (va + vb + 2 n), where d is the mean squared difference, va
    and vb are the variances inside the block, and n is the variance of noise: the structural similarity (SSIM) of Wang
    et al. 2004 without its term for brightness. It is 0 at most if the colours contradict each other.
    """
    gray_a, gray_b = _grays(a, b)
    worst = _worst_block(gray_a, gray_b)
    unsure = np.flatnonzero((worst > 0) & (worst < _SURE))
    if len(unsure):  # tones that one of them has lost can only be taken from the other
        worst[unsure] = np.maximum(worst[unsure], _worst_block(gray_b[unsure], gray_a[unsure]))
    return np.asarray(np.where(_same_colours(a, b), worst, np.minimum(worst, 0)), np.float32)


def _worst_block(a: _Pictures, b: _Pictures) -> _Values:
    fitted = _align(a, b)
    difference = _block_means((a - fitted) ** 2)
    content = _block_variances(a) + _block_variances(fitted)
    return np.asarray((1 - difference / (content + 2 * _NOISE**2)).min(axis=1), np.float32)


def may_be_alike(a: Thumbs, b: Thumbs) -> NDArray[np.bool_]:
    """[N], a cheap test that pairs with a high `similarity` pass: whether the images correlate at 8x8 pixels."""
    x, y = (_rough(t) for t in (a, b))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray((x * y).sum(axis=1) >= _ROUGH_CORRELATION * norms)


def _rough(thumbs: Thumbs) -> _Values:
    """[N, 64], without their means."""
    side = THUMB_PX // _ROUGH_PX
    rows = thumbs[:, :_GRAY_BYTES].reshape(-1, _ROUGH_PX, side, _ROUGH_PX, side)
    rough = rows.mean(axis=(2, 4), dtype=np.float32).reshape(len(thumbs), -1)
    return np.asarray(rough - rough.mean(axis=1, keepdims=True))


def _grays(a: Thumbs, b: Thumbs) -> tuple[_Pictures, _Pictures]:
    """The gray pixels of both; without fine detail, which is lost first, if one of a pair was small to begin with."""
    pictures = np.stack([x[:, :_GRAY_BYTES].reshape(-1, THUMB_PX, THUMB_PX) for x in (a, b)]).astype(np.float32)
    small = (a[:, -1] & b[:, -1]) == 0
    pictures[:, small] = _SOFTEN @ pictures[:, small] @ _SOFTEN.T
    return pictures[0], pictures[1]


def _align(a: _Pictures, b: _Pictures) -> _Pictures:
    """Shift, scale and change the tone of `b` so that it comes as near to `a` as it can."""
    levels = np.sort(a.reshape(len(a), -1), axis=1)
    shift_x = shift_y = scale_x = scale_y = np.zeros(len(a), np.float32)
    moved: _Pictures = b
    best: _Pictures = _match_tones(levels, b)
    for _ in range(_STEPS):
        x, x_scale, y, y_scale = _find_motion(a, moved)
        shift_x, shift_y = ((s + d).clip(-_MAX_SHIFT, _MAX_SHIFT) for s, d in ((shift_x, x), (shift_y, y)))
        scale_x, scale_y = ((s + d).clip(-_MAX_SCALE, _MAX_SCALE) for s, d in ((scale_x, x_scale), (scale_y, y_scale)))
        moved = np.asarray(_sampler(shift_y, scale_y) @ b @ _sampler(shift_x, scale_x).transpose(0, 2, 1), np.float32)
        toned = _match_tones(levels, moved)
        nearer = ((a - toned) ** 2).mean(axis=(1, 2)) < ((a - best) ** 2).mean(axis=(1, 2))
        best = np.asarray(np.where(nearer[:, None, None], toned, best), np.float32)
    return best


def _find_motion(a: _Pictures, b: _Pictures) -> tuple[_Values, _Values, _Values, _Values]:
    """Estimate the shift and scale along x, then y, that bring `b` nearer to `a`, by least squares on its gradients."""
    along_y, along_x = np.gradient(b, axis=(1, 2))
    basis = (np.ones_like(b), b, along_x, along_x * _COORDINATES, along_y, along_y * _COORDINATES[:, None])
    matrix = np.stack(basis, axis=3).reshape(len(b), -1, len(basis))
    transposed = matrix.transpose(0, 2, 1)
    normal = (transposed @ matrix).astype(np.float64)
    damping = np.array([1e-6, 1e-6, 1e-3, 1e-3, 1e-3, 1e-3])
    diagonal = np.einsum("nii->ni", normal)
    diagonal += damping * (diagonal + 1) + 1e-6
    found = np.linalg.solve(normal, (transposed @ a.reshape(len(a), -1, 1)).astype(np.float64))[:, :, 0]
    gain = np.where(np.abs(found[:, 1]) < 1e-3, 1e-3, found[:, 1])
    x, x_scale, y, y_scale = (found[:, 2:] / gain[:, None]).astype(np.float32).T
    return x, x_scale, y, y_scale


def _sampler(shift: _Values, scale: _Values) -> _Pictures:
    """Matrices [N, 32, 32] that sample the rows of a picture at shifted and scaled places, linearly."""
    centre = (THUMB_PX - 1) / 2
    places = (centre + _COORDINATES * (1 + scale[:, None]) + shift[:, None]).clip(0, THUMB_PX - 1)
    below = np.minimum(places.astype(np.int64), THUMB_PX - 2)
    part = (places - below).astype(np.float32)
    matrices = np.zeros((len(shift), THUMB_PX, THUMB_PX), np.float32)
    n, row = np.arange(len(shift))[:, None], np.arange(THUMB_PX)
    matrices[n, row, below] = 1 - part
    matrices[n, row, below + 1] = part
    return matrices


def _match_tones(levels: _Pictures, b: _Pictures) -> _Pictures:
    """Give `b` these gray levels, [N, 1024] in rising order, its darkest pixel the lowest (histogram matching)."""
    fine = (b.reshape(len(b), -1) * _FINE).astype(np.int16)  # numpy sorts 16-bit numbers several times faster
    matched = np.empty_like(levels)
    np.put_along_axis(matched, np.argsort(fine, axis=1, kind="stable"), levels, axis=1)
    return matched.reshape(b.shape)


def _block_means(x: _Pictures) -> _Pictures:
    """Means of all blocks, and of those half a block further."""
    half = _BLOCK_PX // 2
    return np.concatenate([_grid_means(x), _grid_means(x[:, half:-half, half:-half])], axis=1)


def _grid_means(x: _Pictures) -> _Pictures:
    count = x.shape[1] // _BLOCK_PX
    means = x.reshape(len(x), count, _BLOCK_PX, count, _BLOCK_PX).mean(axis=(2, 4))
    return np.asarray(means.reshape(len(x), -1), np.float32)


def _block_variances(x: _Pictures) -> _Pictures:
    return np.asarray(np.maximum(_block_means(x * x) - _block_means(x) ** 2, 0), np.float32)


def _same_colours(a: Thumbs, b: Thumbs) -> NDArray[np.bool_]:
    """[N], whether the colours of no cell differ, or one of the two images is gray."""
    x, y = (t[:, _GRAY_BYTES:-1].reshape(-1, 2, COLOUR_PX, COLOUR_PX).astype(np.float32) - 128 for t in (a, b))
    strength = np.maximum(np.abs(x), np.abs(y))
    differs = (np.abs(x - y) > _COLOUR + _COLOUR_SHARE * strength).any(axis=(1, 2, 3))
    is_gray = (np.abs(x).max(axis=(1, 2, 3)) < _GRAY) | (np.abs(y).max(axis=(1, 2, 3)) < _GRAY)
    return np.asarray(~differs | is_gray)
