"""The stage as it is run: what it says and leaves behind when it stops."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline.harness.execute import StageFolders, execute
from pipeline.harness.fingerprints import write_fingerprints
from pipeline.settings import SettingsError, read_settings, with_environment
from stages.ingest import STAGE
from tests.conftest import Compose


def text(path: Path) -> None:
    path.write_text("no image")


def copy(path: Path) -> None:
    Image.new("L", (20, 20), 7).save(path)


@pytest.mark.parametrize(
    ("make", "labels", "said"),
    [
        (text, "ab", "24 of 24 files .* fix or remove them\n"),
        (copy, "ab", "23 pairs of images are the same, .*=drop or keep\n"),
        (copy, "a", "one class only, a: .* are the classes\n"),
    ],
    ids=["rejected", "copies", "one class"],
)
def test_whatever_stops_ingest_leaves_the_whole_ledger(
    tmp_path: Path,
    compose_conf: Compose,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    labels: str,
    said: str,
) -> None:
    names = [f"{label}/{i:02d}.png" for label in labels for i in range(12)]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        make(tmp_path / "images" / name)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    duplicates = "fail" if len(labels) == 2 else "keep"
    params = compose_conf("data=folder", "data.root=images", f"data.duplicates={duplicates}")
    settings = read_settings(params, source="x")
    write_fingerprints(settings, tmp_path / "config", ())
    folders = StageFolders({"config": tmp_path / "config"}, tmp_path / "ingest", tmp_path / ".unfreeze")
    with pytest.raises(SettingsError, match=rf"(?s){said}.*ledger\.jsonl$") as error:
        execute(STAGE, params, with_environment(settings.runtime), folders)
    lines = [json.loads(line) for line in Path(str(error.value).rpartition(": ")[2]).read_text().splitlines()]
    assert [line["path"] for line in lines] == names
    assert {line["verdict"] for line in lines[1:]} == {"rejected" if make is text else "flagged"}
    assert not folders.target.exists()
