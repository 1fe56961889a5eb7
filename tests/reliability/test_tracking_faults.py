"""MLflow's server does everything that a server can do wrong: publishing returns in time, and nothing is lost.

Each fault meets the real program that talks to MLflow, within its bound. Afterwards the address serves MLflow itself,
and one more publication delivers all the rows.
"""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.harness.live import _LiveRow
from pipeline.kept import write_kept
from pipeline.settings import Runtime
from pipeline.tracking import RowSpec, publish_row, store_uri
from pipeline.tracking.open_rows import note_open, orphans
from pipeline.tracking.publish import keep, publish_bounded, waiting
from pipeline.tracking.spec import FollowSpec

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.xdist_group("tracking")]

PASSWORD = "hunter22"
RUNTIME: dict[str, Any] = {
    "device": "cpu", "threads": 1, "processes": 1, "workers": 0, "checkpoint_s": 30.0, "live_s": 10.0, "tracking": True,
    "tracking_uri": None, "tracking_s": 5.0, "experiment": "x",
}  # fmt: skip
PUBLISH = [sys.executable, "-m", "pipeline.tracking", "publish"]
WAIT_S = 2.0
LOADING_S = 40.0
"""Importing MLflow on a busy machine; what is measured is the time behind it."""
HTML = b"<html><body>Please log in</body></html>"


def answer(head: str, body: bytes = b"") -> Callable[[socket.socket, threading.Event], None]:
    def give(client: socket.socket, _: threading.Event) -> None:
        client.sendall(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return give


def trickle(client: socket.socket, over: threading.Event) -> None:
    """Send a byte of the head every tenth of a second, so that no timeout of a single read is reached."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000:
        client.sendall(bytes([byte]))
        if over.wait(0.1):
            return


def trickle_body(client: socket.socket, over: threading.Event) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while not over.wait(0.1):
        client.sendall(b" ")


def be_silent(_: socket.socket, over: threading.Event) -> None:
    over.wait(60)


def endless(client: socket.socket, over: threading.Event) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while not over.is_set():
        client.sendall(b" " * 65536)


def reset(client: socket.socket, _: threading.Event) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()


def cut(client: socket.socket, _: threading.Event) -> None:
    client.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"experiment": {"experim')


FAULTS: dict[str, Callable[[socket.socket, threading.Event], None]] = {
    "a byte at a time": trickle,
    "a body that trickles": trickle_body,
    "silence": be_silent,
    "an endless body": endless,
    "a reset": reset,
    "a cut answer": cut,
    "503 for ever": answer("503 Service Unavailable\r\nRetry-After: 3600"),
    "429 for ever": answer("429 Too Many Requests\r\nRetry-After: 3600"),
    "500": answer("500 Internal Server Error", b"oops"),
    "401": answer("401 Unauthorized", HTML),
    "redirects in a loop": answer("302 Found\r\nLocation: /"),
    "HTML": answer("200 OK\r\nContent-Type: text/html", HTML),
    "garbage": answer("200 OK", bytes(range(256)) * 64),
    "no HTTP": lambda client, _: client.sendall(b"\x16\x03\x01 SSH-2.0\n" * 10),
    "JSON of another kind": answer("200 OK\r\nContent-Type: application/json", b'[{"experiment": 7}]'),
    "JSON that is deep": answer("200 OK\r\nContent-Type: application/json", b"[" * 200_000),
    "no content": answer("204 No Content"),
}


class Server:
    """An address at which something answers, however wrongly."""

    def __init__(self) -> None:
        self.fault = FAULTS["silence"]
        self.over = threading.Event()
        self.seen = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=[client], daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self.seen += client.recv(65536)
            self.fault(client, self.over)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{PASSWORD}@127.0.0.1:{made.port}")
    monkeypatch.delenv("UNFREEZE_TRACKING_URI", raising=False)
    yield made
    made.close()


def row(tmp_path: Path, seed: int) -> RowSpec:
    return RowSpec(
        params={"seed": seed}, experiment="x", tracking_uri=store_uri(tmp_path), state_dir=tmp_path / "state",
        root=tmp_path, scores={"accuracy": 0.5},
    )  # fmt: skip


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "state" / "pending").glob("*/spec.json"))


def publish_within_bounds(spec: RowSpec, seen: Callable[[], object]) -> float:
    """Publish, and return how long that took from the first request on."""
    first: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if seen() and not first:
                first.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    publish_bounded(spec, PUBLISH, wait_s=WAIT_S)
    over.set()
    watcher.join()
    return time.monotonic() - first[0] if first else 0.0


@pytest.mark.slow
def test_a_server_may_do_anything_and_the_next_publication_delivers(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spent = {}
    for seed, (name, fault) in enumerate(FAULTS.items()):
        server.fault, server.seen = fault, b""
        spent[name] = publish_within_bounds(row(tmp_path, seed), lambda: server.seen)
        said = capfd.readouterr().err
        assert said.count("\n") == 1, (name, said)
        assert said.startswith(f"tracking: http://***@127.0.0.1:{server.port}: "), name
        assert "Traceback" not in said
        assert PASSWORD not in said
        assert len(kept(tmp_path)) == seed + 1, name
    print({name: round(seconds, 2) for name, seconds in spent.items()})
    assert max(spent.values()) < WAIT_S + 2.0, spent
    assert b"Authorization: Basic" in server.seen, "the password reaches the server, and nothing else"
    written = b"".join(file.read_bytes() for file in (tmp_path / "state").rglob("*") if file.is_file())
    assert PASSWORD.encode() not in written
    server.close()

    with serve_mlflow(tmp_path, server.port):
        last = row(tmp_path, len(FAULTS))
        assert publish_row(last) is not None
    assert kept(tmp_path) == []
    with closing(sqlite3.connect(tmp_path / "served.db")) as store:
        rows = store.execute("SELECT count(*), count(DISTINCT run_uuid) FROM runs WHERE status = 'FINISHED'").fetchone()
        assert rows == (len(FAULTS) + 1, len(FAULTS) + 1)


class serve_mlflow:  # noqa: N801
    """Serve MLflow's own app, on a store of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        uri = f"sqlite:///{folder / 'served.db'}"
        program = (
            "from mlflow import MlflowClient; from mlflow.server import app; from werkzeug.serving import run_simple; "
            f"MlflowClient({uri!r}).search_experiments(); print('up', flush=True); "
            f"run_simple('127.0.0.1', {port}, app, threaded=True)"
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "UNFREEZE"))}
        environment |= {
            "_MLFLOW_SERVER_FILE_STORE": uri,
            "_MLFLOW_SERVER_REGISTRY_STORE": uri,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "served"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._port = port
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) and line != b"up\n":
            pass
        assert line
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:  # it listens a moment after it has said so
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self._port)):
                return
            time.sleep(0.05)
        raise TimeoutError("MLflow's server does not listen")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://127.0.0.1:{port}", "TLS"),
        ("http://no-such-host.invalid:5000", "name is not known"),
        ("http://127.0.0.1:9", "does not respond"),
        ("postgresql://user:hunter22@127.0.0.1:9/x", "will not pass"),
    ],
)
def test_an_address_that_leads_nowhere(
    server: Server, address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server.fault = FAULTS["no HTTP"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(port=server.port))
    publish_bounded(row(tmp_path, 1), PUBLISH, wait_s=10)
    warning = capfd.readouterr().err
    assert said in warning
    assert PASSWORD not in warning
    assert len(kept(tmp_path)) == 1


def sqlite_row(tmp_path: Path) -> RowSpec:
    return replace(row(tmp_path, 1), tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b"no database" * 1000), "is no SQLite database"),
        (lambda file: file.mkdir(), "cannot be made or read"),
    ],
)
def test_a_file_that_is_no_store(
    damage: Callable[[Path], object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(tmp_path / "mlflow.db")
    assert publish_row(sqlite_row(tmp_path)) is None
    assert said in capsys.readouterr().err
    assert len(kept(tmp_path)) == 1


def test_a_file_that_another_process_has_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.tracking.store._BUSY_S", 0.1)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN EXCLUSIVE")
        assert publish_row(sqlite_row(tmp_path)) is None
    assert "another process has locked the file" in capsys.readouterr().err
    assert len(kept(tmp_path)) == 1


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda old: old[: len(old) // 2],
    "garbage": lambda old: bytes(byte ^ 0x55 for byte in old),
    "newer": lambda _: b'{"version": 99}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_notes_are_dropped_once_and_by_name(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = sqlite_row(tmp_path)
    keep(spec)
    (pending,) = kept(tmp_path)
    values: dict[str, Any] = vars(spec) | {
        "stage": "full_train",
        "journal": tmp_path / "j",
        "parent_pid": 1,
        "owner": "other:1:1",
    }
    note_open(FollowSpec(**values))
    (noted,) = (tmp_path / "state" / "open").glob("*.json")
    for file in (pending, noted):
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert waiting(spec) == {}
    assert list(orphans(spec.state_dir)) == []
    said = capsys.readouterr().err
    assert str(pending.parent) in said
    assert str(noted) in said
    assert not pending.parent.exists()
    assert not noted.exists()
    assert waiting(spec) == {}
    assert list(orphans(spec.state_dir)) == []
    assert capsys.readouterr().err == "", "said once"


def test_a_newer_form_of_a_kept_row_is_dropped_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(sqlite_row(tmp_path))
    (pending,) = kept(tmp_path)
    write_kept(pending, {"rows": [], "form": 99})
    assert waiting(sqlite_row(tmp_path)) == {}
    assert str(pending.parent) in capsys.readouterr().err


def test_a_kept_curve_that_was_cut_is_not_sent(tmp_path: Path) -> None:
    stage = tmp_path / "artifacts" / "full_train"
    stage.mkdir(parents=True)
    (stage / "stage.json").write_text('{"digest": "d"}')
    (stage / "journal.jsonl").write_text('{"step": 1, "values": {"a": 1.0}}\n{"step": 2, "values": {"a": 2.0}}\n')
    spec = replace(sqlite_row(tmp_path), folders={"full_train": stage})
    keep(spec)
    (journal,) = (tmp_path / "state" / "pending").rglob("journal.jsonl")
    journal.write_text('{"step": 1, "values": {"a": 1.0}}\n')
    assert waiting(spec) == {}


def test_followers_of_runs_at_the_same_time_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both share the state folder, as two jobs of `dvc queue start -j 2` do."""
    monkeypatch.setattr("pipeline.harness.live.state_dir", lambda: tmp_path / "state")
    rows, runtime = [], Runtime(**RUNTIME)
    for seed, pid in ((1, 11), (2, 22)):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        live = _LiveRow("full_train", {"seed": seed}, runtime)
        facts: dict[str, Any] = {
            "stage": "full_train",
            "journal": tmp_path / str(seed),
            "parent_pid": pid,
            "owner": "other:1:1",
        }
        spec = FollowSpec(**vars(row(tmp_path, seed)), **facts)
        rows.append(Path(live._write(spec)))
    assert [FollowSpec.read(file).params["seed"] for file in rows] == [1, 2]
