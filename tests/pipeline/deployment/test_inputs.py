"""What a person may name: files, folders, patterns, and lists on standard input."""

import io
from pathlib import Path

import pytest

from pipeline.deployment.inputs import find_inputs


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("photos/b.jpg", "photos/in/a [1].png", "photos/.hidden.jpg", "photos/Thumbs.db", "x?.jpg", "empty/.x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*names: str, stdin: bytes = b"") -> list[tuple[str, str]]:
    return [(str(n.path), n.error) for n in find_inputs(names, stdin=io.BytesIO(stdin))]


def test_a_folder_stands_for_its_files_without_litter(root: Path) -> None:
    assert found("photos") == [("photos/b.jpg", ""), ("photos/in/a [1].png", "")]
    assert found(f"{root}/photos") == [(f"{root}/photos/b.jpg", ""), (f"{root}/photos/in/a [1].png", "")]


@pytest.mark.usefixtures("root")
def test_patterns_are_for_names_that_are_no_files() -> None:
    assert found("photos/**/*.png") == [("photos/in/a [1].png", "")]
    assert found("photos/in/a [1].png", "x?.jpg") == [("photos/in/a [1].png", ""), ("x?.jpg", "")]
    assert found("phot*") == [("photos/b.jpg", ""), ("photos/in/a [1].png", "")]
    assert found("*.gif") == [("*.gif", "no file matches")]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("stdin", [b"photos/b.jpg\nx?.jpg\n", b"photos/b.jpg\r\n\r\nx?.jpg", b"photos/b.jpg\0x?.jpg\0"])
def test_names_are_read_from_standard_input(stdin: bytes) -> None:
    assert found("-", stdin=stdin) == [("photos/b.jpg", ""), ("x?.jpg", "")]


@pytest.mark.usefixtures("root")
def test_what_leads_nowhere_stays_in_the_list() -> None:
    assert found("empty", "gone.jpg") == [("empty", "a folder without files"), ("gone.jpg", "")]
