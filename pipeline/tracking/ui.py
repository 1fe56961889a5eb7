"""The table of runs in a browser: MLflow's own server on the local store, without telemetry and log lines."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlencode

from pipeline.paths import state_dir
from pipeline.printable import printable
from pipeline.tracking.open_rows import orphans
from pipeline.tracking.spec import sqlite_file, sqlite_uri, store_uri
from pipeline.tracking.views import PREFIX, RUNS, SWEEP

DEFAULT_PORT = 5000

_APP = "unfreeze"
"""The entry point of `page.py`."""

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
}


def serve_ui(*, port: int = DEFAULT_PORT) -> NoReturn:
    """Print the addresses of the page and replace this process by MLflow's server.

    The store is UNFREEZE_TRACKING_URI, or the one that `store_uri` names for the working directory. Raises
    FileNotFoundError if no run has been logged yet, ValueError if the store is a server, which has a page of its own,
    or the project is not installed.
    """
    uri = store_uri(Path.cwd(), os.environ.get("UNFREEZE_TRACKING_URI"))
    file = sqlite_file(uri)
    if file is None:
        raise ValueError(f"MLFLOW_TRACKING_URI={uri} is a server: open that address in a browser")
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: no run has been logged yet; `make run` makes one")
    if not entry_points(group="mlflow.app", name=_APP):
        raise ValueError("this version of the project is not installed: python -m pip install --no-deps -e .")
    _end_orphans()
    print("The table of runs, in about twenty seconds (stop with Ctrl-C):", flush=True)
    for title, address in addresses(file, f"http://127.0.0.1:{port}"):
        print(printable(f"  {title:<13} {address}"), flush=True)
    os.chdir(file.parent)  # so that the URI need not spell the names of its folders
    uri = sqlite_uri(Path(file.name))
    stores = ["--backend-store-uri", uri, "--registry-store-uri", uri]  # without the second, MLflow warns
    command = ["mlflow", "ui", "--app-name", _APP, *stores, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    os.execve(sys.executable, [sys.executable, "-m", *command], {**os.environ, **_QUIET})


def addresses(file: Path, server: str) -> Iterator[tuple[str, str]]:
    """Yield a title and the address of each saved view of the experiment with the newest row."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
        newest = store.execute("SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1").fetchone()
        experiment = str(newest[0]) if newest else "0"
        tags = store.execute("SELECT key FROM experiment_tags WHERE experiment_id = ?", [experiment]).fetchall()
    for title, key in (("runs", RUNS), ("latest sweep", SWEEP)):
        if key == RUNS or (f"{PREFIX}{key}",) in tags:
            # The mode is also in the address, for MLflow servers without our page.
            query = urlencode({"viewStateShareKey": key, "workflowType": "machine_learning"})
            yield title, f"{server}/#/experiments/{experiment}/runs?{query}"


def _end_orphans() -> None:
    """End the rows that a kill left open, before anybody looks at them."""
    if next(orphans(state_dir()), None) is not None:
        subprocess.run([sys.executable, "-m", "pipeline.tracking", "orphans", "--state", str(state_dir())], check=True)
