"""The stage as it is run: what it says and leaves behind when it stops."""

import json
from pathlib import Path

import pytest

from pipeline.settings import SettingsError, read_settings, with_environment
from pipeline.stage import Places, execute
from stages.config import write_fingerprints
from stages.ingest import STAGE
from tests.conftest import Compose


def test_the_whole_ledger_is_kept_where_too_much_is_rejected(
    tmp_path: Path, compose_conf: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{label}/{i:02d}.png" for label in "ab" for i in range(12)]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_text("no image")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    params = compose_conf("data=folder", "data.root=images")
    settings = read_settings(params, source="x")
    write_fingerprints(settings, tmp_path / "config")
    places = Places({"config": tmp_path / "config"}, tmp_path / "ingest", tmp_path / ".unfreeze")
    with pytest.raises(SettingsError, match=r"(?s)24 of 24 files .* mend or remove them\n.*ledger\.jsonl$") as error:
        execute(STAGE, params, with_environment(settings.runtime), places)
    lines = Path(str(error.value).rpartition(": ")[2]).read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == names
    assert not places.target.exists()
