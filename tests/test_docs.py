"""Links in the documentation lead somewhere: to a file of the repository, and to a heading that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "pretraining").glob("*.md")],
)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a Markdown page."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_relative_links_resolve(page: Path) -> None:
    links = [link for link in _LINK.findall(_CODE.sub("", page.read_text())) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        assert not anchor or anchor in anchors(target.read_text()), f"{page.name}: no heading {anchor} in {target.name}"


def test_every_picture_of_the_recipe_is_shown() -> None:
    shown = set(re.findall(r"\]\(recipe/(\w+\.png)\)", (ROOT / "docs" / "recipe.md").read_text()))
    assert shown == {p.name for p in (ROOT / "docs" / "recipe").iterdir()}
