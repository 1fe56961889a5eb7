"""The MLflow store: finds or creates it, reads and writes rows, silently and within seconds.

This is the only module that imports MLflow, and only inside `reachable`, because the import takes two seconds.
"""

import getpass
import json
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from pipeline.files import atomic_file
from pipeline.processes import group_is_alive
from pipeline.tracking.content import Points, flat_params
from pipeline.tracking.spec import RowSpec, row_digest, sqlite_file

ROW, STATE, OPEN, OWNER = "unfreeze.row", "unfreeze.state", "unfreeze.open", "unfreeze.owner"
"""Tags: digest of the settings; digest of the state (closed rows only); whether the row is open; its writer."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default, 7 with growing pauses, takes minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a busy server could ask for an hour
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Set unless the user has set them."""

_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without it the interface guesses, and may open its pages for language models."""

_Item = TypeVar("_Item")


class StoreUnavailableError(Exception):
    """The store does not respond or refuses a request. The caller has to keep what it wanted to send."""


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Silence MLflow inside the block, and turn all its errors into a StoreUnavailableError of one line."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            text = str(error)
            reason = "the server does not respond" if "failed with exception" in text else text.partition("\n")[0][:200]
            raise StoreUnavailableError(f"{uri}: {reason}") from error


class Store:
    """One experiment in the store. Use inside `reachable`."""

    def __init__(self, spec: RowSpec) -> None:
        from mlflow import MlflowClient

        database = sqlite_file(spec.tracking_uri)
        if database is not None:
            _create_database(database)
        self._client: Any = MlflowClient(tracking_uri=spec.tracking_uri)
        home = database.parent if database else spec.root
        local = None if spec.tracking_uri.startswith("http") else (home / "mlartifacts").as_uri()
        self._experiment_id = self._find_experiment(spec.experiment, artifact_location=local)

    def open_row(self, spec: RowSpec, *, owner_pid: int) -> str:
        """Find the open row of these settings or create it, and return its run id. The caller holds the row's lock."""
        run_id = self.find(**{ROW: row_digest(spec), OPEN: "true"})
        if run_id is None:
            return self.create_row(spec, owner_pid=owner_pid)
        self._client.update_run(run_id, status="RUNNING")  # it may have been marked as KILLED
        self._describe(run_id, spec, owner_pid=owner_pid)
        return run_id

    def create_row(self, spec: RowSpec, *, owner_pid: int) -> str:
        """Create an open row and return its run id."""
        tags = {ROW: row_digest(spec), OPEN: "true"}
        name = spec.tags.get("dvc_exp_name") or f"{spec.experiment}-{row_digest(spec)[:7]}"
        run_id = str(self._client.create_run(self._experiment_id, tags=tags, run_name=name).info.run_id)
        self._describe(run_id, spec, owner_pid=owner_pid)
        return run_id

    def find(self, **tags: str) -> str | None:
        """Return the run id of the oldest row that has these tags and is not deleted."""
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        runs = self._client.search_runs(
            [self._experiment_id], condition, max_results=1, order_by=["attributes.start_time ASC"]
        )
        return str(runs[0].info.run_id) if runs else None

    def read_points(self, run_id: str, *, prefix: str = "") -> Points:
        """Read all points of the row. A point that is sent twice would be stored twice."""
        names = [name for name in self._client.get_run(run_id).data.metrics if name.startswith(prefix)]
        histories = (self._client.get_metric_history(run_id, name) for name in names)
        return {(m.key, m.step): m.value for history in histories for m in history}

    def log_points(self, run_id: str, points: Points) -> None:
        """Send points, in batches."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = (Metric(name, value, now_ms, step) for (name, step), value in points.items())
        for batch in _batches(metrics, 1000):
            self._client.log_batch(run_id, metrics=batch)

    def log_files(self, run_id: str, files: list[tuple[Path, str]]) -> None:
        """Send files, each to its folder among the row's artifacts; a file of the same name is overwritten."""
        for file, folder in files:
            self._client.log_artifact(run_id, str(file), folder or None)

    def close_row(self, run_id: str, *, status: str, tags: dict[str, str]) -> None:
        """End the row. The tags come last: after a kill between the two calls the row is still open."""
        self._client.set_terminated(run_id, status=status)
        self._set_tags(run_id, {**tags, OPEN: "false"})

    def add_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Add tags to a row, open or closed."""
        self._set_tags(run_id, tags)

    def delete_row(self, run_id: str) -> None:
        """Move the row to MLflow's trash."""
        self._client.delete_run(run_id)

    def end_orphans(self) -> None:
        """Mark rows as KILLED whose writer on this machine has ended. A run with equal settings reopens its row."""
        condition = f"tags.`{OPEN}` = 'true' and attributes.status = 'RUNNING'"
        for run in self._client.search_runs([self._experiment_id], condition):
            host, _, group = run.data.tags.get(OWNER, "").rpartition(":")
            if host == socket.gethostname() and not group_is_alive(int(group)):
                self._client.set_terminated(run.info.run_id, status="KILLED")

    def show_columns(self, columns: list[str]) -> None:
        """Store these columns as a shared view: the default table shows neither settings nor scores."""
        if columns:
            view = json.dumps({"selectedColumns": columns})
            self._client.set_experiment_tag(self._experiment_id, "mlflow.sharedViewState.unfreeze", view)

    def _find_experiment(self, name: str, *, artifact_location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        if self._client.get_experiment_by_name(name) is None:
            with suppress(MlflowException):  # another process may have created it in the meantime
                self._client.create_experiment(name, artifact_location, _EXPERIMENT_TAGS)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None or experiment.lifecycle_stage != "active":
            raise MlflowException(
                f"the experiment {name!r} was deleted there; restore it in MLflow or set another runtime.experiment"
            )
        return str(experiment.experiment_id)

    def _describe(self, run_id: str, spec: RowSpec, *, owner_pid: int) -> None:
        from mlflow.entities import Param

        with suppress(ProcessLookupError):  # if it has just ended, its PID serves as well
            # The group, not the process: between two stages only the process that starts them is alive.
            owner_pid = os.getpgid(owner_pid)
        owner = f"{socket.gethostname()}:{owner_pid}"
        self._set_tags(run_id, {**origin_tags(spec.root), **spec.tags, OWNER: owner})
        for batch in _batches(flat_params(spec).items(), 100):
            self._client.log_batch(run_id, params=[Param(*item) for item in batch])

    def _set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(name, value[:5000]) for name, value in tags.items()])


def origin_tags(root: Path) -> dict[str, str]:
    """Return the user and the commit as tags, under the names that MLflow's table shows."""
    tags = {"mlflow.source.name": "unfreeze"}
    with suppress(OSError, KeyError):  # a container may run as a user without a name
        tags["mlflow.user"] = getpass.getuser()
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
    return tags


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _create_database(path: Path) -> None:
    """Create the SQLite file in one process: MLflow's own migration fails if several processes start it at once.

    MLflow has to make the file itself, so it makes one elsewhere, which is then copied into place.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=60):
        if not path.exists():
            from mlflow import MlflowClient

            with tempfile.TemporaryDirectory() as folder, atomic_file(path) as file:
                draft = Path(folder) / path.name
                MlflowClient(tracking_uri=f"sqlite:///{draft}")
                with draft.open("rb") as made:
                    shutil.copyfileobj(made, file)
