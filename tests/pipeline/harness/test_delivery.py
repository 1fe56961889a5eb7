"""What the harness hands to the delivery."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.harness.delivery import publish_now, row_spec
from pipeline.settings import Runtime

pytestmark = pytest.mark.xdist_group("tracking")


def test_a_row_takes_what_was_drawn_and_the_remarks(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {"ingest": Path("artifacts/ingest")}
    spec = row_spec(params={}, folders=folders, runtime=runtime, tags={}, drawn=Path("artifacts/report"), notes=("a",))
    assert spec.drawn == tmp_path / "artifacts" / "report"
    assert spec.folders == {"ingest": tmp_path / "artifacts" / "ingest"}
    assert spec.notes == ["a"]
    plain = row_spec(params={}, folders=folders, runtime=runtime, tags={})
    assert (plain.drawn, plain.notes) == (None, [])


def test_a_job_is_published_from_a_process_of_its_own(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # where the state goes
    runtime = replace(runtime, tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    publish_now(params={"seed": 1}, folders={}, runtime=runtime, tags={}, notes=["the rate is high"])
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        (note,) = store.execute("SELECT value FROM tags WHERE key = 'mlflow.note.content'").fetchone()
    assert note == "- the rate is high"
