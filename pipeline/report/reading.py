"""Reading what is drawn: images of the data set, and tables of stages."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from pipeline.cells import read_records
from pipeline.data.decode import DecodeError, decode
from pipeline.data.manifest import read_root
from pipeline.files import read_json

Folders = Mapping[str, Path]
"""Stage name to the folder that the stage published."""


def read_images(folders: Folders, paths: Iterable[str]) -> list[Image.Image]:
    """Read images of the data set; those that cannot be read are left out."""
    root, background = read_root(folders["ingest"]), background_of(folders["ingest"])
    images = (read_image(root / path, background) for path in paths)
    return [image for image in images if image is not None]


def read_image(path: Path, background: str) -> Image.Image | None:
    """Read an image; None if it cannot be read any more."""
    try:
        return decode(path, background=background).image
    except DecodeError:
        return None


def background_of(ingest: Path) -> str:
    """The colour behind transparent pixels."""
    background: str = read_json(ingest / "stage.json")["settings"]["data.background"]
    return background


def read_rows(table: Path) -> Iterable[dict[str, str]]:
    """Yield the rows of a CSV file."""
    return read_records(table)
