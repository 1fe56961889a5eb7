"""MLflow's server on PostgreSQL, with eight writers at once: nothing is lost, and files go through the server."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking import RowSpec, store_uri
from pipeline.tracking.models import download_model
from tests.pipeline.test_tracking import (
    STAGES,
    artifact_text,
    rows,
    start,
    write_drawn,
    write_journal,
    write_stage,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.xdist_group("pg")]

NUM_WRITERS = 8
NUM_POINTS = 500
START_S = 240
"""MLflow's server imports for a minute on a busy machine."""


@dataclass(frozen=True)
class Database:
    """A PostgreSQL of our own, which runs as a user that is not root, as it demands."""

    programs: Path
    folder: Path
    port: int
    user: str | None

    @property
    def address(self) -> str:
        return f"postgresql+psycopg2://unfreeze@127.0.0.1:{self.port}/postgres"

    def control(self, *arguments: str) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), *arguments)

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        with (self.folder.parent / f"{program}.log").open("a") as log:
            subprocess.run(command, user=self.user, cwd=self.folder, stdout=log, stderr=log, timeout=60, check=True)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Read the tables as they are, past MLflow."""
        import psycopg2

        with psycopg2.connect(host="127.0.0.1", port=self.port, user="unfreeze", dbname="postgres") as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            return list(cursor.fetchall())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    pytest.importorskip("psycopg2")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found += [Path(program)] if (program := shutil.which("pg_ctl")) else []
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:  # that user cannot enter pytest's folder
        Path(home).chmod(0o755)
        folder = Path(home) / "postgres"
        folder.mkdir()
        if user:
            shutil.chown(folder, user)
        made = Database(found[0].parent, folder, free_port(), user)
        made.run("initdb", "-D", str(folder / "data"), "-U", "unfreeze", "--auth=trust")
        made.control("-o", f"-p {made.port} -k {folder} -c listen_addresses=127.0.0.1", "-w", "start")
        try:
            yield made
        finally:
            made.control("-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of MLflow's server, started as docs/scale.md says."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", database.address, "--serve-artifacts", "--artifacts-destination", str(folder / "files"),
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "UNFREEZE", "_MLFLOW"))}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (folder / "log.txt").open("w")
    with log, subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log.txt")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)


def write_state(folder: Path, seed: int, server: str) -> RowSpec:
    """What a machine of its own has made: stages with long curves, pictures and a model."""
    folders = {stage: folder / "artifacts" / stage for stage in STAGES}
    for stage in folders.values():
        write_stage(stage, salt=str(seed))
    journal = folders["full_train"] / "journal.jsonl"
    journal.unlink()
    write_journal(journal, [{"step": i, "values": {"train_loss": seed + i / 7}} for i in range(NUM_POINTS)])
    (folders["tta_evaluate"] / "model" / "tta.json").write_text("{}")
    (folders["tta_evaluate"] / "model" / "model.safetensors").write_bytes(bytes([seed]) * 2_000_000)
    write_drawn(folder / "artifacts" / "report", colour=f"colour {seed}")
    return RowSpec(
        params={"seed": seed}, folders=folders, drawn=folder / "artifacts" / "report", name=f"writer {seed}",
        scores={"accuracy": seed / 10}, experiment="eight", tracking_uri=store_uri(folder, server),
        state_dir=folder / ".unfreeze", root=folder,
    )  # fmt: skip


def test_eight_writers_at_once_lose_nothing(database: Database, server: str, tmp_path: Path) -> None:
    specs = [write_state(tmp_path / str(seed), seed, server) for seed in range(NUM_WRITERS)]
    for _ in range(3):  # a writer that the busy server kept waiting has kept its row, and is started again
        late = [spec for spec in specs if not list((spec.state_dir / "published").glob("*.json"))]
        writers = [start("publish", spec) for spec in late]
        said = [writer.communicate(timeout=300)[0] for writer in writers]
        assert all(writer.returncode == 0 for writer in writers), said
    assert all(list((spec.state_dir / "published").glob("*.json")) for spec in specs), said
    assert not any(list((spec.state_dir / "pending").glob("*")) for spec in specs)

    assert database.ask("SELECT status, count(*) FROM runs GROUP BY status") == [("FINISHED", NUM_WRITERS)]
    points = database.ask(
        "SELECT name, step, value FROM metrics JOIN runs USING (run_uuid) WHERE key = 'curve/full_train/train_loss'"
    )
    expected = [(f"writer {seed}", i, seed + i / 7) for seed in range(NUM_WRITERS) for i in range(NUM_POINTS)]
    assert sorted(points) == sorted(expected)
    for row in rows(specs[0]):
        seed = int(row.data.params["seed"])
        text = artifact_text(specs[0], row.info.run_id, "report.html", tmp_path / f"downloads{seed}")
        assert text == f"<h1>Report in colour {seed}</h1>"
        assert stored_weights(specs[0], row.info.run_id, tmp_path / f"model{seed}") == bytes([seed]) * 2_000_000


def stored_weights(spec: RowSpec, run_id: str, target: Path) -> bytes:
    """The weights of the model of a row, downloaded through the server as `unfreeze predict runs:/ID/model` does."""
    target.mkdir()
    [weights] = download_model(f"runs:/{run_id}/model", target, uri=spec.tracking_uri).rglob("model.safetensors")
    return weights.read_bytes()


def test_a_row_that_was_sent_is_not_sent_again(database: Database, server: str, tmp_path: Path) -> None:
    spec = replace(write_state(tmp_path, 9, server), experiment="again")
    for _ in range(2):
        said, _ = (writer := start("publish", spec)).communicate(timeout=300)
        assert writer.returncode == 0, said
    assert len(rows(spec)) == 1
    [(count,)] = database.ask(
        "SELECT count(*) FROM metrics JOIN runs USING (run_uuid) "
        "WHERE name = 'writer 9' AND key = 'curve/full_train/train_loss'"
    )
    assert count == NUM_POINTS
