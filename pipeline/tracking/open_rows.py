"""Rows that are open in the store: a note per row beside the state, so that a row of a stopped run is ended.

A row is open from the first points that are sent live until `publish_row` finishes it. The notes tell without MLflow
whether there is anything to end.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from pipeline.files import digest
from pipeline.processes import named_is_alive
from pipeline.tracking.spec import FollowSpec, RowSpec, row_digest
from pipeline.tracking.store import KILLED_NOTE, Store, reachable

LOCK_TIMEOUT_S = 30


def row_lock(spec: RowSpec) -> FileLock:
    """Return the lock that a process holds while it writes the open row of these settings."""
    path = spec.state_dir / "locks" / f"row-{row_digest(spec)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def note_open(spec: FollowSpec) -> None:
    """Note that the row of these settings is open in the store."""
    file = _note(spec)
    spec.write(file)


def is_open(spec: RowSpec) -> bool:
    """Whether the row of these settings is noted as open."""
    return _note(spec).exists()


def forget_open(spec: RowSpec) -> None:
    """Drop the note."""
    _note(spec).unlink(missing_ok=True)


def end_open(spec: FollowSpec, *, status: str) -> None:
    """End the open row of these settings as FAILED, for good, or KILLED, until the same run continues it.

    The caller holds the row's lock. Raises StoreUnavailableError, and the note stays.
    """
    with reachable(spec.tracking_uri):
        store = Store(spec)
        run_id = store.find_open(spec)
        if run_id is not None and status == "FAILED":
            store.end_row(run_id, status=status, note=f"- **Failed** in the stage `{spec.stage}`.")
        elif run_id is not None:
            store.end_row(run_id, status=status, note=KILLED_NOTE, stays_open=True)
    forget_open(spec)


def orphans(state_dir: Path) -> Iterator[FollowSpec]:
    """Yield the open rows whose owner has ended. A damaged note is dropped: the next `publish` ends that row."""
    for file in sorted((state_dir / "open").glob("*.json")):
        try:
            spec = FollowSpec.read(file)
        except ValueError:
            continue
        if not named_is_alive(spec.owner):
            yield spec


def end_orphans(state_dir: Path) -> None:
    """End the open rows whose owner has ended. Raises StoreUnavailableError, and the notes stay."""
    for spec in orphans(state_dir):
        with suppress(ValueError), row_lock(spec).acquire(timeout=LOCK_TIMEOUT_S):
            if is_open(spec) and not named_is_alive(FollowSpec.read(_note(spec)).owner):
                end_open(spec, status="KILLED")


def _note(spec: RowSpec) -> Path:
    place = digest({"row": row_digest(spec), "tracking_uri": spec.tracking_uri})
    return spec.state_dir / "open" / f"{place}.json"
