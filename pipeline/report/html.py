"""A page: one HTML file that needs no other file and no network.

Names of classes and files are hostile input: the template escapes all text, and the page's own policy forbids
scripts and anything that is not in the file. Plots are drawn on white; in dark mode the page itself turns them over.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image, UnidentifiedImageError

from pipeline.files import write_text

Cell = str | int | float | None
"""A cell of a table: a float is shown with four digits, None as a dash."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SMALL_PX = 64
"""Images up to this size are enlarged without smoothing."""
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
class Shot:
    """Images of the data set beside each other, such as a photo and where the network looked, with lines of text."""

    images: Sequence[Path]
    """WebP files; none where the image cannot be read any more."""
    lines: Sequence[str]
    alt: str


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
    shots: Sequence[Shot] = ()
    commands: Sequence[str] = ()
    """Lines to paste into a terminal."""


@dataclass(frozen=True)
class Report:
    """What the page shows, in order."""

    title: str
    headline: str
    """The result in one sentence."""
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    figure: str = ""
    """The one number that stands largest."""
    verdict: Sequence[tuple[str, str]] = ()
    """Questions, and what the run says to them."""


def write_report(path: Path, *, report: Report) -> None:
    """Write `report` as one HTML page at `path`. Raises ValueError for a picture that is neither PNG nor WebP."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "embed": _embed,
        "size_px": _size_px,
        "is_small": _is_small,
        "cell": _cell,
        "code": _code,
        "is_numeric": _is_numeric,
    }
    page = environment.get_template("html.j2").render(report=report)
    write_text(path, page)


def _embed(picture: Path) -> str:
    content = picture.read_bytes()
    if content.startswith(_PNG_SIGNATURE):
        kind = "png"
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "webp"
    else:
        raise ValueError(f"{picture} is not a PNG, nor a WebP")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _size_px(picture: Path) -> tuple[int, int]:
    """Read width and height, so that a browser reserves the space before it decodes the picture."""
    try:
        with Image.open(picture) as image:
            return image.size
    except UnidentifiedImageError:
        raise ValueError(f"{picture} is not a PNG, nor a WebP") from None


def _is_small(picture: Path) -> bool:
    return max(_size_px(picture)) <= _SMALL_PX


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _code(text: str) -> Markup:
    """Set what stands between backticks as code; everything else stays text."""
    parts = text.replace(" %", "\N{NO-BREAK SPACE}%").split("`")
    if len(parts) % 2 == 0:
        return escape("`".join(parts))
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _is_numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column] is not None]
    return bool(cells) and all(not isinstance(c, str) or _NUMBER.fullmatch(c) is not None for c in cells)
