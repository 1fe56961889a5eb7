"""Single small pictures for pages, where captions are text and the paper may be dark.

They lie in `tiles/` beside the pictures of a stage, as WebP: `<set>-<row>.webp`, or `<set>-<row>-<column>.webp`.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageOps

from pipeline.data.decode import DecodeError, Framing, decode_framed
from pipeline.data.manifest import read_root
from pipeline.files import atomic_file, read_json
from pipeline.report.contact_sheet import as_rgb
from pipeline.report.reading import Folders, background_of, read_image

TILE_PX = 160
TILES = "tiles"
_SMALL_PX = 64
"""Images up to this size are stored without loss."""
_HEAT = (255, 106, 0)
_HEAT_SHARE = 0.85
"""How much of the colour covers a place that matters most."""
_FADED = 0.7
"""Brightness of a place that matters nothing."""


def tile_path(out: Path, kind: str, *place: int, suffix: str = "") -> Path:
    """Where the tile of a set lies; `out` is the folder of the stage's pictures."""
    return out / TILES / f"{'-'.join([kind, *(f'{i:02d}' for i in place)])}{suffix}.webp"


def save_tile(path: Path, image: Image.Image) -> None:
    """Write an image, reduced to a tile; a small one stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tile = as_rgb(image)
    tile.thumbnail((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    with atomic_file(path, flush=False) as file:
        tile.save(file, format="WEBP", lossless=max(tile.size) <= _SMALL_PX, quality=80, method=4)


def save_row(out: Path, kind: str, row: int, images: Iterable[Image.Image]) -> None:
    """Write the tiles of a row of images."""
    for column, image in enumerate(images):
        save_tile(tile_path(out, kind, row, column), image)


def save_files(out: Path, kind: str, paths: Iterable[str], ingest: Path, *, at_most: int) -> None:
    """Write a tile for each of the first files of the data set; those that cannot be read any more are left out."""
    root, background = read_root(ingest), background_of(ingest)
    for row, path in enumerate(islice(paths, at_most)):
        if (image := read_image(root / path, background)) is not None:
            save_tile(tile_path(out, kind, row), image)


def save_looks(out: Path, kind: str, tta_evaluate: Path, folders: Folders) -> None:
    """Write tiles of the images in `<kind>.json` as the model sees them, and beside each where it looked."""
    if not (tta_evaluate / f"{kind}.json").exists():
        return
    root, framing = read_root(folders["ingest"]), _framing(tta_evaluate / "model")
    for row, shown in enumerate(read_json(tta_evaluate / f"{kind}.json")):
        try:
            image = decode_framed(root / shown["path"], framing)
        except DecodeError:
            continue
        save_tile(tile_path(out, kind, row), image)
        if np.any(grid := shown.get("map", [[0]])):
            save_tile(tile_path(out, kind, row, suffix="-where"), heat_over(image, grid))


def heat_over(image: Image.Image, grid: Sequence[Sequence[int]]) -> Image.Image:
    """Colour the places that matter: `grid` [h, w] from 0 to 255 is stretched over the image, whose colours fade."""
    size = (max(image.width, _SMALL_PX + 1), max(image.height, _SMALL_PX + 1))
    larger = image.resize(size, Image.Resampling.NEAREST)
    heat = Image.fromarray(np.asarray(grid, dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    share = _HEAT_SHARE * np.asarray(heat, dtype=np.float64)[..., None] / 255
    faded = np.asarray(ImageOps.grayscale(larger).convert("RGB"), dtype=np.float64)
    return Image.fromarray(((1 - share) * _FADED * faded + share * np.array(_HEAT)).round().astype(np.uint8))


def _framing(model: Path) -> Framing:
    """How the model sees images, but no larger than a tile."""
    size = min(TILE_PX, read_json(model / "model.json")["image_size"])
    return Framing(size, **yaml.safe_load((model / "policy.yaml").read_text(encoding="utf-8"))["framing"])
