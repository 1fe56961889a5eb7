"""What the harness hands to the delivery."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.harness.delivery import publish_now, row_spec
from pipeline.settings import Runtime

pytestmark = pytest.mark.xdist_group("tracking")


@pytest.fixture
def unfreeze(tmp_path: Path) -> Path:
    """The folder of a stage that has a remark: its ratio is below the recipe's."""
    folder = tmp_path / "artifacts" / "unfreeze"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text('{"lr_ratio": 2.0}')
    (folder / "stage.json").write_text('{"digest": "d"}')
    return folder


def test_a_row_takes_what_was_drawn_and_the_remarks(
    runtime: Runtime, tmp_path: Path, unfreeze: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {"unfreeze": unfreeze.relative_to(tmp_path)}
    spec = row_spec(params={}, folders=folders, runtime=runtime, tags={}, drawn=Path("artifacts/report"))
    assert spec.drawn == tmp_path / "artifacts" / "report"
    assert spec.folders == {"unfreeze": unfreeze}
    (note,) = spec.notes
    assert note.startswith("**unfreeze**: warning: unfreeze.lr_ratio=2")
    plain = row_spec(params={}, folders={}, runtime=runtime, tags={}, drawn=None)
    assert (plain.drawn, plain.notes) == (None, [])


def test_a_job_is_published_from_a_process_of_its_own(
    runtime: Runtime, tmp_path: Path, unfreeze: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # where the state goes
    runtime = replace(runtime, tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    publish_now(params={"seed": 1}, folders={"unfreeze": unfreeze}, runtime=runtime, tags={}, drawn=None)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        (note,) = store.execute("SELECT value FROM tags WHERE key = 'mlflow.note.content'").fetchone()
    assert note.startswith("- **unfreeze**: warning: unfreeze.lr_ratio=2")
