"""What a row is made from, as a file that another process can read, and the digests that identify rows."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from pipeline.files import digest, folder_digest, read_json
from pipeline.kept import drop, read_kept, write_kept
from pipeline.passwords import hide_passwords
from pipeline.settings import shown

_SQLITE = "sqlite:///"
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")
"""Stores that MLflow knows by itself; a plugin may add others."""
_TYPED = ("UNFREEZE_TRACKING_URI", "MLFLOW_TRACKING_URI")
"""Where in the environment an address may stand, with its password."""


ROW_FORMAT = 2
"""The version of what a row shows. A state whose row has an older one gets a new row."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The images that a row was made from."""

    name: str
    digest: str
    """Equal for equal images, labels and splits; at most 36 characters."""
    source: str
    """A path, or the name of the library that carries the images."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of images, of classes, and of images per split."""


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """One row of the MLflow table: a pipeline state, made from its settings and its artifact folders."""

    params: dict[str, Any]
    """All settings, nested. With `experiment` they identify the open row."""

    experiment: str

    tracking_uri: str
    """A server, or an SQLite file with an absolute path, as `store_uri` returns it."""

    state_dir: Path
    """Holds what must outlive a process: timings, receipts, locks and rows that wait for delivery."""

    root: Path
    """The checkout that the stages run in. Git is asked there for the commit."""

    folders: dict[str, Path] = field(default_factory=dict)
    """The published folder of each stage that has one, in the order of the stages."""

    drawn: Path | None = None
    """The folder of `report.html` and `<stage>/<picture>.png`, if any. It is not part of the state."""

    name: str = ""
    """What the table shows first."""

    scores: dict[str, float] = field(default_factory=dict)
    """The numbers that sum up the state, by name. Those without a `/` stand first in the table."""

    dataset: Dataset | None = None

    description: list[str] = field(default_factory=list)
    """Lines of Markdown."""

    started: float | None = None
    """When the first stage of the run began, in seconds since 1970; None: when the row is written."""

    ended: float | None = None
    """When the last stage ended; None: when the row is closed."""

    changed: list[str] = field(default_factory=list)
    """The settings that differ from those that the run started from: `full_train.lr`, ..."""

    tags: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the spec, sealed. It holds no password: `tracking_uri` has none."""
        write_kept(path, _as_json(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote. Raises ValueError for a file that is damaged or of another version, and drops it."""
        values = read_kept(path)
        try:
            return TypeAdapter(cls).validate_python(values)  # what older versions had in addition is ignored
        except ValidationError:
            if values is not None:
                drop(path)
            raise ValueError(f"{path} holds no row") from None


@dataclass(frozen=True, kw_only=True)
class FollowSpec(RowSpec):
    """A running stage, whose journal is sent to the open row while it grows."""

    stage: str

    journal: Path

    parent_pid: int
    """The process that writes the journal. The follower stops when it ends."""

    owner: str
    """The process that starts the stages, as `process_name` names it. While it is alive, the row stays open."""


def store_uri(root: Path, typed: str | None = None) -> str:
    """Return the URI of the store: `typed` if given, else MLFLOW_TRACKING_URI, else `mlflow.db` in DVC_ROOT or `root`.

    A relative SQLite path starts there too, not at the working directory: in `dvc exp run --temp` that is a copy of the
    checkout. A password is hidden; `uri_from_here` finds it again. Raises ValueError for what cannot be a store.
    """
    home = Path(os.environ.get("DVC_ROOT") or root).resolve()
    uri = typed or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    path = sqlite_file(uri)
    if path is not None:
        return sqlite_uri(home / path) + _query(uri)
    if _is_folder(uri):
        raise ValueError(
            f"MLflow's store {shown(uri)} is a folder, which MLflow no longer writes into: name an SQLite file, such "
            "as sqlite:///mlflow.db, or a server (http://...), in MLFLOW_TRACKING_URI or runtime.tracking_uri"
        )
    if not _is_known(scheme := urlsplit(uri).scheme):
        raise ValueError(
            f"MLflow has no store for {scheme}:// (runtime.tracking_uri, or MLFLOW_TRACKING_URI): name an SQLite file, "
            "such as sqlite:///mlflow.db, or a server (http://...)"
        )
    return hide_passwords(uri)


def sqlite_file(uri: str) -> Path | None:
    """Return the database file of an SQLite URI; None for servers and other databases."""
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0])) if uri.startswith(_SQLITE) else None


def sqlite_uri(file: Path) -> str:
    """Return the URI of an SQLite file. What SQLAlchemy decodes, or takes for options, is encoded."""
    return _SQLITE + str(file).replace("%", "%25").replace("?", "%3F")


def uri_from_here(uri: str) -> str:
    """Return `uri` as the working directory's process must give it to MLflow, with its password.

    MLflow makes the folder of an SQLite file without decoding its name: a name that is encoded is left out of the path.
    """
    file = sqlite_file(uri)
    if file is None:
        typed = (os.environ.get(name, "") for name in _TYPED)
        return next((full for full in typed if hide_passwords(full) == uri), uri)
    if "%" not in uri.partition("?")[0]:
        return uri
    return sqlite_uri(Path(os.path.relpath(file))) + _query(uri)


def _query(uri: str) -> str:
    _, mark, options = uri.partition("?")
    return mark + options


def _is_folder(uri: str) -> bool:
    scheme = urlsplit(uri).scheme
    return scheme == "file" or (not scheme and uri not in ("databricks", "uc"))


def _is_known(scheme: str) -> bool:
    plain = scheme.partition("+")[0]
    return plain in ("", *_SCHEMES) or any(e.name == scheme for e in entry_points(group="mlflow.tracking_store"))


def row_digest(spec: RowSpec) -> str:
    """Identify the row that runs with these settings write to while it is open."""
    return settings_digest(spec.params, experiment=spec.experiment)


def settings_digest(params: Mapping[str, Any], *, experiment: str) -> str:
    """Identify the settings of a run and the table that it goes into."""
    return digest(_as_json({"experiment": experiment, "params": dict(params)}))


def state_digest(spec: RowSpec) -> str:
    """Identify the pipeline state: the settings and the contents of all stages' folders.

    What was drawn is left out, also where the stage that draws has a folder of its own in `folders`.
    """
    computed = {stage: folder for stage, folder in spec.folders.items() if folder != spec.drawn}
    stages = {stage: read_json(folder / "stage.json")["digest"] for stage, folder in computed.items()}
    return digest({"row": row_digest(spec), "stages": stages, "format": ROW_FORMAT})


def delivery_digest(spec: RowSpec) -> str:
    """Identify the state in one store. Receipts and rows that wait for delivery are filed under it."""
    return digest({"state": state_digest(spec), "tracking_uri": spec.tracking_uri})


def drawn_digest(spec: RowSpec) -> str | None:
    """Identify the pictures and the report; None if there are none."""
    return folder_digest(spec.drawn) if spec.drawn is not None and spec.drawn.is_dir() else None


def _as_json(value: object) -> Any:
    """Replace what JSON has no form for, such as paths, dates and infinity, by text."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
