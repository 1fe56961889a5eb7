"""The table of runs in a browser: MLflow's own server on the local store, without telemetry and noise."""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from pipeline.tracking.spec import sqlite_file, store_uri

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
}


def serve_ui(*, port: int) -> None:
    """Say where to look, and become the server. Raises FileNotFoundError where no run has been logged yet."""
    uri = store_uri(Path.cwd())
    file = sqlite_file(uri)
    if file is None:
        raise ValueError(f"MLFLOW_TRACKING_URI={uri} is a server with a page of its own: open it in a browser")
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist yet: `make run` makes it")
    page = f"http://127.0.0.1:{port}/#/experiments/{_last_experiment(file)}/runs"
    print(f"The table of runs, in about twenty seconds (Ctrl-C ends it):\n  {page}?{_VIEW}", flush=True)
    stores = ["--backend-store-uri", uri, "--registry-store-uri", uri]  # the second, or MLflow says that it lacks it
    command = ["mlflow", "ui", *stores, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    os.execve(sys.executable, [sys.executable, "-m", *command], {**os.environ, **_QUIET})


_VIEW = "viewStateShareKey=unfreeze&workflowType=machine_learning"
"""The columns that `publish` chose, and MLflow's page for models rather than for chat."""


def _last_experiment(file: Path) -> str:
    """Of the experiments with rows the one that was used last."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as store:
        row = store.execute("SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1").fetchone()
    return str(row[0]) if row else "0"
