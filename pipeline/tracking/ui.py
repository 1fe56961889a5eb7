"""The table of runs in a browser: MLflow's own server on the local store, without telemetry and log lines."""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from pipeline.tracking.spec import sqlite_file, sqlite_uri, store_uri

DEFAULT_PORT = 5000

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
}


def serve_ui(*, port: int = DEFAULT_PORT) -> NoReturn:
    """Print the address of the page and replace this process by MLflow's server.

    The store is UNFREEZE_TRACKING_URI, or the one that `store_uri` names for the working directory. Raises
    FileNotFoundError if no run has been logged yet, ValueError if the store is a server, which has a page of its own.
    """
    uri = store_uri(Path.cwd(), os.environ.get("UNFREEZE_TRACKING_URI"))
    file = sqlite_file(uri)
    if file is None:
        raise ValueError(f"MLFLOW_TRACKING_URI={uri} is a server: open that address in a browser")
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: no run has been logged yet; `make run` makes one")
    os.chdir(file.parent)  # so that the URI need not spell the names of its folders
    page = f"http://127.0.0.1:{port}/#/experiments/{_last_experiment(file)}/runs"
    print(f"The table of runs, in about twenty seconds (stop with Ctrl-C):\n  {page}?{_VIEW}", flush=True)
    uri = sqlite_uri(Path(file.name))
    stores = ["--backend-store-uri", uri, "--registry-store-uri", uri]  # without the second, MLflow warns
    command = ["mlflow", "ui", *stores, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    os.execve(sys.executable, [sys.executable, "-m", *command], {**os.environ, **_QUIET})


_VIEW = "viewStateShareKey=unfreeze&workflowType=machine_learning"
"""The columns that `publish` selected, and MLflow's page for trained models, not for language models."""


def _last_experiment(file: Path) -> str:
    """Return the id of the experiment with the newest row."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
        row = store.execute("SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1").fetchone()
    return str(row[0]) if row else "0"
