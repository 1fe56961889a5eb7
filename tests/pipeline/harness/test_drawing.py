"""Pictures are drawn once, and again whenever what they show or how they are drawn has changed."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from pipeline.harness import drawing
from pipeline.harness.drawing import draw_once
from pipeline.harness.published import complete_record, write_record


class Painter:
    """Draws one picture, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, stage: str, folders: Mapping[str, Path], out: Path) -> None:
        assert stage in folders
        self.count += 1
        out.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), self.count).save(out / f"{stage}.png")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "artifacts" / "unfreeze"
    folder.mkdir(parents=True)
    write_record(folder, complete_record(folder, {}))
    return {"unfreeze": folder}


def test_what_was_drawn_is_copied_until_something_changes(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    painter, state = Painter(), tmp_path / ".unfreeze"

    def drawn(out: str) -> int:
        (picture,) = draw_once("unfreeze", folders, tmp_path / out, state=state, draw=painter)
        with Image.open(picture) as image:
            assert image.getpixel((0, 0)) == painter.count
        assert picture.parent == tmp_path / out
        return painter.count

    assert drawn("once") == drawn("again") == 1
    (folders["unfreeze"] / "plan.json").write_text("another")
    write_record(folders["unfreeze"], complete_record(folders["unfreeze"], {}))
    assert drawn("again") == 2
    monkeypatch.setattr(drawing, "code_fingerprint", lambda _: "another colour")
    assert drawn("again") == 3
    monkeypatch.setattr(drawing, "version", lambda name: f"newer {name}")
    assert drawn("again") == 4
    (kept,) = (state / "pictures").glob("*/drawn/*.png")
    kept.write_bytes(b"damaged")
    assert drawn("again") == 5
    (state / "pictures" / "unfreeze" / "key.json").write_text("{")
    assert drawn("again") == 6


def test_old_pictures_of_a_stage_are_removed(tmp_path: Path, folders: dict[str, Path]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.png").touch()
    draw_once("unfreeze", folders, out, state=tmp_path / ".unfreeze", draw=Painter())
    assert [p.name for p in out.iterdir()] == ["unfreeze.png"]


def test_a_stage_without_pictures_leaves_no_folder(tmp_path: Path, folders: dict[str, Path]) -> None:
    out = tmp_path / "out"
    assert draw_once("unfreeze", folders, out, state=tmp_path / ".unfreeze", draw=lambda *_: None) == []
    assert not out.exists()
