"""What a row is made from, as a file that another process can read, and the digests that identify rows."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

_SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """One row of the MLflow table: a pipeline state, made from its settings and its artifact folders."""

    params: dict[str, Any]
    """All settings, nested; with `experiment` they identify the open row."""

    experiment: str

    tracking_uri: str
    """As `store_uri` gives it: of a server, or of an SQLite file with an absolute path."""

    state_dir: Path
    """Holds what must outlive a process: timings, receipts, locks and rows that could not be delivered."""

    root: Path
    """The checkout that the stages run in: git is asked there for the commit."""

    folders: dict[str, Path] = field(default_factory=dict)
    """The published folder of each stage that has one, in order of stages."""

    tags: dict[str, str] = field(default_factory=dict)

    columns: list[str] = field(default_factory=list)
    """What the table shows under `?viewStateShareKey=unfreeze`: ``metrics.`head_train/valid/accuracy` ``, ..."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), default=str, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["folders"] = {stage: Path(folder) for stage, folder in values.get("folders", {}).items()}
        for name in {"state_dir", "root", "journal"} & values.keys():
            values[name] = Path(values[name])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class FollowSpec(RowSpec):
    """A running stage, whose journal is sent to the open row while it grows."""

    stage: str

    journal: Path

    parent_pid: int
    """The process that writes the journal; following ends with it."""


def store_uri(root: Path) -> str:
    """Name the store: MLFLOW_TRACKING_URI where it is set, else `mlflow.db` at DVC_ROOT, else at `root`.

    A relative SQLite path is taken from there too, not from the working directory, which is a copy of the checkout in
    `dvc exp run --temp`.
    """
    home = Path(os.environ.get("DVC_ROOT") or root).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    path = sqlite_file(uri)
    return uri if path is None else f"{_SQLITE}{home / path}"


def sqlite_file(uri: str) -> Path | None:
    """The database file that the URI names; None for servers and other databases."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def row_digest(spec: RowSpec) -> str:
    """Identify the row that runs of these settings write into while it is open."""
    return _digest({"experiment": spec.experiment, "params": spec.params})


def state_digest(spec: RowSpec) -> str:
    """Identify the pipeline state: settings and the contents of all stages' folders."""
    stages = {s: json.loads((f / "stage.json").read_bytes())["digest"] for s, f in spec.folders.items()}
    return _digest({"row": row_digest(spec), "stages": stages})


def delivery_digest(spec: RowSpec) -> str:
    """Identify the state in one store: under it lie its receipt and what could not be delivered."""
    return _digest({"state": state_digest(spec), "tracking_uri": spec.tracking_uri})


def flatten(values: dict[str, Any], *, separator: str) -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= {f"{key}{separator}{k}": v for k, v in flatten(value, separator=separator).items()}
        else:
            flat[str(key)] = value
    return flat


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
