"""A stage that fails under DVC: one error, also where nothing more can be written."""

import errno
from pathlib import Path

import pytest

from pipeline import files
from pipeline.harness import start
from pipeline.harness.start import describe, run_under_dvc
from pipeline.params import to_yaml
from stages.ingest import STAGE as INGEST
from tests.conftest import Compose


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose_conf: Compose) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stages.ingest"])
    (tmp_path / "params.yaml").write_text(to_yaml(compose_conf()))
    return tmp_path


def test_an_error_is_told_and_its_traceback_kept(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_under_dvc(INGEST) == 1  # config has not run
    said = capfd.readouterr().err
    assert "data.json is missing: run `dvc repro ingest`" in said
    assert "(traceback: .unfreeze/errors/ingest.txt)" in said
    assert "Traceback" in (checkout / ".unfreeze" / "errors" / "ingest.txt").read_text()


def test_a_full_disk_is_told_though_the_handler_cannot_write_either(
    checkout: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_step: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(checkout / "artifacts"))

    monkeypatch.setattr(files, "before_step", full)
    monkeypatch.setattr(start, "execute", fail)
    assert run_under_dvc(INGEST) == 1
    said = capfd.readouterr().err
    assert f"{checkout}/artifacts: no space left" in said
    assert "no traceback is kept" in said


def test_what_a_full_disk_is_told_names_the_file_and_what_is_free(tmp_path: Path) -> None:
    text = describe(OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / "model")))
    assert text.startswith(f"{tmp_path}/model: no space left")
    assert "are free" in text
    assert "type the same command again" in text
    assert describe(ValueError("other")) == "other"
