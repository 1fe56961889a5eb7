"""The MLflow store: finds or creates it, reads and writes rows, silently and within seconds.

This is the only module that imports MLflow, and only inside `reachable`, because the import takes two seconds.
"""

import json
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from pipeline.files import atomic_file
from pipeline.passwords import hide_passwords
from pipeline.processes import named_is_alive
from pipeline.tracking.content import Points, flat_params
from pipeline.tracking.origin import origin_tags
from pipeline.tracking.refusal import advice, reason
from pipeline.tracking.spec import Dataset, RowSpec, row_digest, sqlite_file, sqlite_uri, uri_from_here
from pipeline.tracking.views import PREFIX, RUNS, SWEEP, runs_view, sweep_view

ROW, STATE, OPEN, OWNER = "unfreeze.row", "unfreeze.state", "unfreeze.open", "unfreeze.owner"
"""Tags: digest of the settings; digest of the state (finished rows only); whether the row is open; what runs it."""

NOTE = "mlflow.note.content"
"""The tag that MLflow's page shows as the row's description."""

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

_BUSY_S = 5.0
"""How long another process may hold an SQLite file."""

KILLED_NOTE = "- **Stopped** before its end. The same command continues from there."

_TRAINING = ("full_train", "head_train_augmented", "head_train")
"""The stages that train, the last first."""

_Item = TypeVar("_Item")


class StoreUnavailableError(Exception):
    """The store does not respond or refuses a request. The caller has to keep what it wanted to send.

    The message ends with what happens next, or with what to change where waiting does not help.
    """


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Silence MLflow inside the block, and turn all its errors into a StoreUnavailableError of one line.

    All of them, because a server may answer anything; and without their cause, which may name a password.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401 (what it raises is known once it is imported)

        try:
            yield
        except StoreUnavailableError:
            raise
        except Exception as error:
            raise StoreUnavailableError(f"{hide_passwords(uri)}: {reason(error)}{advice(error)}") from None


class Store:
    """One experiment in the store. Use inside `reachable`."""

    def __init__(self, spec: RowSpec) -> None:
        from mlflow import MlflowClient

        database = sqlite_file(spec.tracking_uri)
        if database is not None:
            _create_database(database)
            _try_database(database)
        self._client: Any = MlflowClient(tracking_uri=uri_from_here(spec.tracking_uri))
        home = database.parent if database else spec.root
        local = None if spec.tracking_uri.startswith("http") else (home / "mlartifacts").as_uri()
        self._experiment_id = self._find_experiment(spec.experiment, artifact_location=local)

    def open_row(self, spec: RowSpec, *, owner: str) -> str:
        """Find the open row of these settings or create it, and return its run id. The caller holds the row's lock."""
        run_id = self.find_open(spec)
        if run_id is None:
            return self.create_row(spec, owner=owner)
        self._client.update_run(run_id, status="RUNNING")  # it may have been marked as KILLED
        self._describe(run_id, spec, owner=owner)
        return run_id

    def create_row(self, spec: RowSpec, *, owner: str) -> str:
        """Create an open row and return its run id."""
        tags = {ROW: row_digest(spec), OPEN: "true"}
        run = self._client.create_run(self._experiment_id, _milliseconds(spec.started), tags, spec.name or None)
        run_id = str(run.info.run_id)
        self._describe(run_id, spec, owner=owner)
        return run_id

    def find_open(self, spec: RowSpec) -> str | None:
        """Return the run id of the open row of these settings."""
        return self.find(**{ROW: row_digest(spec), OPEN: "true"})

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

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Attach the images that the row was made from."""
        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        entity = Entity(
            name=dataset.name[:500],
            digest=dataset.digest,
            source_type="local",
            source=json.dumps({"uri": dataset.source}),
            profile=json.dumps(dataset.counts),
        )
        inputs = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        try:
            self._client.log_inputs(run_id, datasets=inputs)
        except (MlflowException, SQLAlchemyError):  # another process may have stored these images in the meantime
            self._client.log_inputs(run_id, datasets=inputs)

    def close_row(self, run_id: str, spec: RowSpec, *, tags: dict[str, str]) -> None:
        """Finish the row. The tags come last: after a kill between the calls the row is still open."""
        self._client.update_run(run_id, name=spec.name or None)
        self._client.set_terminated(run_id, "FINISHED", _milliseconds(spec.ended))
        self.set_tags(run_id, {**tags, OPEN: "false"})

    def end_row(self, run_id: str, *, status: str, note: str, stays_open: bool = False) -> None:
        """End a row that is not finished. A run with the same settings continues one that `stays_open`."""
        self._client.set_terminated(run_id, status)
        self.set_tags(run_id, {NOTE: note, OPEN: "true" if stays_open else "false"})

    def delete_row(self, run_id: str) -> None:
        """Move the row to MLflow's trash."""
        self._client.delete_run(run_id)

    def end_orphans(self) -> None:
        """Mark rows as KILLED whose owner on this machine has ended. A run with equal settings reopens its row."""
        condition = f"tags.`{OPEN}` = 'true' and attributes.status = 'RUNNING'"
        for run in self._client.search_runs([self._experiment_id], condition):
            if not named_is_alive(run.data.tags.get(OWNER, "")):
                self.end_row(run.info.run_id, status="KILLED", note=KILLED_NOTE, stays_open=True)

    def show_views(self, spec: RowSpec) -> None:
        """Save the views of the table; that of sweeps shows the one that this row belongs to, if any."""
        views = {RUNS: runs_view()}
        if "sweep" in spec.tags:
            trained = next((stage for stage in _TRAINING if stage in spec.folders), _TRAINING[0])
            tested = "accuracy" in spec.scores
            views[SWEEP] = sweep_view(spec.tags["sweep"], spec.changed, tested=tested, trained=trained)
        from mlflow.exceptions import MlflowException

        for key, view in views.items():
            tag = (self._experiment_id, f"{PREFIX}{key}", view.to_tag())
            try:
                self._client.set_experiment_tag(*tag)
            except MlflowException:  # another first writer made the same tag in between: now it is there to be set
                self._client.set_experiment_tag(*tag)

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags of a row, open or closed."""
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(name, value[:5000]) for name, value in tags.items()])

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

    def _describe(self, run_id: str, spec: RowSpec, *, owner: str) -> None:
        from mlflow.entities import Param

        note = {NOTE: "- **Running.**"}
        self.set_tags(run_id, {**note, **_origin(spec.root), **spec.tags, OWNER: owner})
        for batch in _batches(flat_params(spec).items(), 100):
            self._client.log_batch(run_id, params=[Param(*item) for item in batch])


def load(spec: RowSpec) -> None:
    """Do what takes long and needs no store: import MLflow, and ask git."""
    with reachable(spec.tracking_uri):
        from mlflow import MlflowClient  # noqa: F401
    _origin(spec.root)


@cache
def _origin(root: Path) -> dict[str, str]:
    return origin_tags(root)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _try_database(path: Path) -> None:
    """Raise sqlite3.Error where the file cannot be written: MLflow would try for two minutes before it says so."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.rollback()


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
                MlflowClient(tracking_uri=sqlite_uri(draft))
                with draft.open("rb") as made:
                    shutil.copyfileobj(made, file)
