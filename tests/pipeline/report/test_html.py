"""The report stands alone, and text from outside stays text."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pipeline.report.html import Picture, Report, Section, Shot, Table, Tile, write_report

HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"


class _Page(HTMLParser):
    """Collects tags, attributes and text as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    for name in ("red.png", "red.webp"):
        Image.new("RGB", (30, 20), "red").save(tmp_path / name)
    return Picture(tmp_path / "red.png", caption=HOSTILE, alt=HOSTILE)


def _write(path: Path, report: Report) -> str:
    write_report(path, report=report)
    return path.read_text(encoding="utf-8")


def _report(picture: Picture) -> Report:
    shot = Shot([picture.path.with_name("red.webp")] * 2, [HOSTILE, HOSTILE], HOSTILE)
    table = Table([HOSTILE, "rate"], [[HOSTILE, 0.00123456], ["b", None]])
    return Report(
        HOSTILE,
        HOSTILE,
        [Tile(HOSTILE, HOSTILE, HOSTILE)],
        [
            Section(HOSTILE, HOSTILE, [HOSTILE], [picture], table, [shot, Shot([], [], "gone")], [HOSTILE]),
            Section("Head", 3),
            Section("Plain"),
        ],
        figure=HOSTILE,
        verdict=[(HOSTILE, HOSTILE)],
    )


def test_text_from_outside_stays_text(tmp_path: Path, picture: Picture) -> None:
    page = _Page(_write(tmp_path / "report.html", _report(picture)))
    assert "script" not in page.tags
    assert ("alt", HOSTILE) in page.attributes
    assert page.text.count(HOSTILE) >= 15
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_page_needs_nothing_beside_it(tmp_path: Path, picture: Picture) -> None:
    text = _write(tmp_path / "report.html", _report(picture))
    page = _Page(text)
    links = [value for name, value in page.attributes if name in {"src", "href"}]
    assert links
    assert all(link.startswith(("data:image/png;base64,", "data:image/webp;base64,", "#")) for link in links)
    assert not re.search(r"url\(|@import|https?:", text)
    embedded = next(link for link in links if link.startswith("data:image/png"))
    assert base64.b64decode(embedded.split(",")[1]) == picture.path.read_bytes()
    assert ("width", "30") in page.attributes


def test_every_link_has_its_target_and_ids_are_unique(tmp_path: Path, picture: Picture) -> None:
    page = _Page(_write(tmp_path / "report.html", _report(picture)))
    ids = [value for name, value in page.attributes if name == "id"]
    targets = {v.removeprefix("#") for n, v in page.attributes if n == "href"}
    targets |= {v for n, v in page.attributes if n == "for"}
    assert len(ids) == len(set(ids))
    assert targets == set(ids)


def test_steps_come_in_the_order_given(tmp_path: Path) -> None:
    sections = [
        Section("Data"),
        Section("Find the rate", 2),
        Section("Unfreeze", "5-6"),
        Section("Views", "TTA"),
    ]
    text = _write(tmp_path / "report.html", Report("r", "h", sections=sections))
    assert re.findall(r'title="Step (\S+) of', text) == ["2", "5-6", "TTA"]
    assert re.findall(r"<h2>(.+)</h2>", text) == ["Data", "Find the rate", "Unfreeze", "Views"]


def test_cells(tmp_path: Path) -> None:
    table = Table(["name", "n", "share"], [["a", 12345, "96.1%"], ["b", 0.00123456, "±3 px"], ["c", None, "1e-05"]])
    text = _write(tmp_path / "report.html", Report("r", "h", sections=[Section("s", table=table)]))
    assert re.findall(r"<td(.*?)>(.*?)</td>", text) == [
        ("", "a"), (' class="num"', "12,345"), (' class="num"', "96.1%"),
        ("", "b"), (' class="num"', "0.001235"), (' class="num"', "±3 px"),
        ("", "c"), (' class="num"', "–"), (' class="num"', "1e-05"),
    ]  # fmt: skip


def test_an_empty_report_is_a_page(tmp_path: Path) -> None:
    assert "<h1>nothing yet</h1>" in _write(tmp_path / "report.html", Report("nothing yet", ""))


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    assert "\\udcff.png" in _write(tmp_path / "report.html", Report("\udcff.png", ""))


def test_two_writes_give_the_same_bytes(tmp_path: Path, picture: Picture) -> None:
    assert _write(tmp_path / "a.html", _report(picture)) == _write(tmp_path / "b.html", _report(picture))


def test_only_png_is_embedded(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"<svg onload=alert(1)>" * 9)
    sections = [Section("s", pictures=[Picture(tmp_path / "x.png", "c", "a")])]
    with pytest.raises(ValueError, match="not a PNG"):
        write_report(tmp_path / "report.html", report=Report("r", "h", sections=sections))


def test_backticks_set_code_and_an_odd_one_stays(tmp_path: Path) -> None:
    sections = [Section("s", paragraphs=["type `a < b`, or c", "one ` alone", "90 %"])]
    text = _write(tmp_path / "report.html", Report("r", "h", sections=sections))
    assert "<p>type <code>a &lt; b</code>, or c</p>" in text
    assert "<p>one ` alone</p>" in text
    assert "<p>90\N{NO-BREAK SPACE}%</p>" in text


def test_plots_are_turned_over_on_dark_paper_and_photos_are_not(tmp_path: Path, picture: Picture) -> None:
    text = _write(tmp_path / "report.html", _report(picture))
    dark = text[text.index("@media screen and (prefers-color-scheme: dark)") :].partition("\n}")[0]
    assert re.findall(r"(\S+ img) \{ filter: invert", dark) == [".frame img"]
    assert "filter" not in text[text.index("@media print") :].partition("</style>")[0]


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        Table(["a", "b"], [["x"]])
