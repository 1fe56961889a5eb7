"""The report page: one HTML file that needs no other file and no network.

Names of classes and files are hostile input: the template escapes all text, and the page's own policy forbids
scripts and anything that is not in the file.
"""

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.files import write_text

Cell = str | int | float | None
"""A cell of a table: a float is shown with four digits, None as a dash."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NUMBER = re.compile(r"[+\-±]?[\d.,]+(e[+-]?\d+)?\s?(%|×|x|s|ms|min|px|pp)?", re.IGNORECASE)


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the report, such as the accuracy."""

    label: str
    value: str
    detail: str = ""
    """Small text below the value, such as its interval."""


@dataclass(frozen=True)
class Picture:
    """A PNG that is embedded."""

    path: Path
    caption: str
    alt: str
    """Describes the picture to those who cannot see it."""


@dataclass(frozen=True)
class Table:
    """A table; columns of numbers are aligned to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells under {len(self.header)} headings: {list(row)}")


@dataclass(frozen=True)
class Section:
    """A part of the report, usually one step of the recipe."""

    heading: str
    step: int | str | None = None
    """Step of the recipe, such as 3 or "5-6"; None where the section is not a step."""
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Report:
    """What the page shows, in order."""

    title: str
    headline: str
    """The result in one sentence."""
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def write_report(path: Path, *, report: Report) -> None:
    """Write `report` as one HTML page at `path`. Raises ValueError for a picture that is not a PNG."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"embed": _embed, "size_px": _size_px, "cell": _cell, "is_numeric": _is_numeric}
    page = environment.get_template("html.j2").render(report=report)
    write_text(path, page)


def _embed(picture: Path) -> str:
    content = picture.read_bytes()
    if not content.startswith(_PNG_SIGNATURE):
        raise ValueError(f"{picture} is not a PNG")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _size_px(picture: Path) -> tuple[int, int]:
    """Read width and height, so that a browser reserves the space before it decodes the picture."""
    with picture.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:])
    return width, height


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _is_numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column] is not None]
    return bool(cells) and all(not isinstance(c, str) or _NUMBER.fullmatch(c) is not None for c in cells)
