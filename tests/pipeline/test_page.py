"""MLflow's page, as `make ui` opens it."""

import asyncio
import json
import os
import re
import sqlite3
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking import ui
from tests.conftest import PROJECT

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.xdist_group("tracking"),
]


def make_store(file: Path, *views: str) -> None:
    with closing(sqlite3.connect(file)) as store:
        store.execute("CREATE TABLE runs (experiment_id INTEGER, start_time INTEGER)")
        store.execute("CREATE TABLE experiment_tags (experiment_id INTEGER, key TEXT, value TEXT)")
        store.executemany("INSERT INTO runs VALUES (?, ?)", [(1, 10), (7, 20)])
        keys = [(7, f"mlflow.sharedViewState.{view}", "") for view in views]
        store.executemany("INSERT INTO experiment_tags VALUES (?, ?, ?)", keys)
        store.commit()


def test_the_addresses_are_those_of_the_saved_views(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    make_store(file, "unfreeze", "unfreeze-sweep")
    runs, sweep = ui.addresses(file, "http://127.0.0.1:5000")
    mode = "workflowType=machine_learning"
    assert runs == ("runs", f"http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=unfreeze&{mode}")
    assert sweep == (
        "latest sweep",
        f"http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=unfreeze-sweep&{mode}",
    )


def test_there_is_no_address_of_a_sweep_before_there_was_one(tmp_path: Path) -> None:
    make_store(tmp_path / "mlflow.db", "unfreeze")
    assert [title for title, _ in ui.addresses(tmp_path / "mlflow.db", "http://127.0.0.1:5000")] == ["runs"]


def test_ui_starts_mlflow_with_our_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "mlflow.db", "unfreeze")
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _program, arguments, _environment: started.append(arguments))
    monkeypatch.setattr(ui, "entry_points", lambda **_: [])
    with pytest.raises(ValueError, match="pip install"):
        ui.serve_ui(port=1)
    monkeypatch.setattr(ui, "entry_points", lambda **_: ["unfreeze"])
    ui.serve_ui(port=1)
    ((program, *arguments),) = started
    assert program == sys.executable
    assert arguments[:5] == ["-m", "mlflow", "ui", "--app-name", "unfreeze"]
    assert "sqlite:///mlflow.db" in arguments
    assert Path.cwd() == tmp_path
    assert "http://127.0.0.1:1/#/experiments/7/runs" in capsys.readouterr().out


def get_first_page(app: Any, *, host: str) -> tuple[int, str]:
    """Ask an ASGI app for its first page; returns the status and the text."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
    }
    scope |= {
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", host.encode())],
    }
    asyncio.run(app(scope | {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 5000)}, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


def test_the_page_opens_as_a_table_of_training_runs() -> None:
    from pipeline.tracking.page import create_app

    app = create_app()
    status, text = get_first_page(app, host="127.0.0.1:5000")
    assert status == 200
    found = re.search(r"Object.entries\((.*?)\)\)", text)
    assert found is not None
    choices = json.loads(found[1])
    assert choices["mlflow.workflowType_v1"] == '"machine_learning"'
    assert choices["mlflow.settings.telemetry.enabled_v1"] == "false"
    assert text.index("<script>") < text.index("static-files/static/js/main")
    status, _ = get_first_page(app, host="evil.example")
    assert status == 403  # MLflow's own guard against other host names stands before our page


def test_mlflow_still_keeps_its_choices_under_these_names() -> None:
    """The names are MLflow's own and may change with its version: the page must be looked at again then."""
    import mlflow

    from pipeline.tracking.page import CHOICES

    scripts = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    main = next(scripts.glob("main.*.js")).read_text(encoding="utf-8")
    for key in CHOICES:
        name, _, version = key.rpartition("_v")
        assert f'"{name}"' in main
        assert version == "1"
    assert 'sharedViewState."' in main
    assert "data-assistant-ui" in main


def test_the_entry_point_names_the_page() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["mlflow.app"] == {"unfreeze": "pipeline.tracking.page:create_app"}
