"""Which store a URI means, also below folders with odd names, and what is said where a store refuses for good."""

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.tracking import RowSpec, publish_row, store_uri
from pipeline.tracking.spec import sqlite_file, sqlite_uri

# SQLAlchemy warns about MLflow's own table definitions when they are first imported.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.xdist_group("tracking")]


@pytest.fixture
def row(tmp_path: Path) -> RowSpec:
    """A row without stages."""
    return RowSpec(
        params={"seed": 1}, experiment="x", tracking_uri="", state_dir=tmp_path / "state", root=tmp_path, folders={}
    )


def test_a_store_that_was_typed_comes_first_and_starts_at_the_checkout_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert store_uri(Path("/here"), "sqlite:///mine.db") == "sqlite:////here/mine.db"
    assert store_uri(Path("/here"), "http://other") == "http://other"


@pytest.mark.parametrize("typed", ["./mlruns", "mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused_as_a_store(typed: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///mlflow\.db"):
        store_uri(Path("/here"), typed)


@pytest.mark.parametrize("path", ["/ci/feature%2Fx/m.db", "/what?/m.db", "/C#-vision/a b/m.db", "/50%/m.db"])
def test_the_file_of_a_uri_is_the_one_that_it_was_made_from(path: str) -> None:
    assert sqlite_file(sqlite_uri(Path(path))) == Path(path)
    assert sqlite_file(sqlite_uri(Path(path)) + "?timeout=30") == Path(path)


def test_a_row_is_written_below_a_folder_with_any_name(
    row: RowSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "C#-what?" / "feature%2Fx"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    odd = replace(row, tracking_uri=store_uri(home), root=home)
    run_id = publish_row(odd)
    assert capsys.readouterr().err == ""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        assert database.execute("SELECT run_uuid, status FROM runs").fetchall() == [(run_id, "FINISHED")]
    assert publish_row(odd) == run_id, "the receipt does not fit the file"
    beside = [path.name for path in (*tmp_path.iterdir(), *home.parent.iterdir())]
    assert sorted(beside) == ["C#-what?", "feature%2Fx", "state"], "MLflow made a folder of another name"


@pytest.mark.parametrize(
    ("status", "said"), [(401, "MLFLOW_TRACKING_USERNAME"), (403, "may not write"), (404, "no MLflow"), (503, "")]
)
def test_a_refusal_that_will_not_pass_says_what_to_change(
    row: RowSpec, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>no</html>")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert publish_row(replace(row, tracking_uri=f"http://127.0.0.1:{server.server_port}")) is None
        server.shutdown()
    warning = capsys.readouterr().err
    assert ("This will not pass" in warning) == bool(said)
    assert said in warning
    assert "is kept in" in warning
