"""Folders of images that benchmarks generate, a folder per class: nothing is downloaded."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from pretraining.glyphs import GlyphSettings, build_atlas
from pretraining.render import RenderSettings, render
from pretraining.settings import load_settings

LETTERS = 26
LETTERS_EACH = 20
TILE_PX = 16
SETTINGS = ("data=folder", "data.image_size=32", "data.margin=0.0")
"""What suits the folders that are written here, beside `data.root`."""


def write_letters(folder: Path) -> None:
    """Draw Latin letters as pretraining does."""
    glyphs = replace(load_settings(GlyphSettings, "glyphs"), alphabets=["LATIN"], symbols=[])
    atlas, drawing = build_atlas(glyphs), load_settings(RenderSettings, "render")
    wanted = dict.fromkeys(range(LETTERS), 0)
    index = 0
    while min(wanted.values()) < LETTERS_EACH:
        images, labels = render(atlas, drawing, seed=2026, indices=torch.arange(index, index + 256))
        index += 256
        for image, label in zip(images, labels.tolist(), strict=True):
            if wanted.get(label, LETTERS_EACH) < LETTERS_EACH:
                wanted[label] += 1
                _save(image.permute(1, 2, 0).numpy(), folder / f"letter-{label:02d}" / f"{wanted[label]:03d}.png")


def write_photo_tiles(folder: Path) -> None:
    """Cut scikit-learn's two photos (a temple, a flower) into tiles; the classes are the halves of each photo."""
    for number, photo in enumerate(load_sample_images().images):
        rows, columns = (side // TILE_PX for side in photo.shape[:2])
        for row, column in product(range(rows), range(columns)):
            tile = photo[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
            region = f"photo{number}-{'above' if 2 * row < rows else 'below'}"
            _save(tile, folder / region / f"{row:02d}-{column:02d}.png")


def _save(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
