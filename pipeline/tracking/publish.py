"""Completing a row from the folders of all stages, once per state; keeping it where the store is away."""

import json
import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.tracking.content import Content, files_of, read_content
from pipeline.tracking.spec import RowSpec, delivery_digest, row_digest, sqlite_file, state_digest
from pipeline.tracking.store import OPEN, ROW, STATE, Store, StoreUnavailableError, origin_tags, reachable

_KEPT = ("stage.json", "metrics.json", "journal.jsonl", "report.html", "*.png")
"""What is copied of a folder whose row could not be delivered. The model is too large: it is linked to."""

_LOCK_TIMEOUT_S = 30

_FINISHED_AND_NONE_OPEN = f"""
    SELECT count(*) FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active' AND status = 'FINISHED'
    AND NOT EXISTS (SELECT 1 FROM tags JOIN tags AS open USING (run_uuid) JOIN runs AS other USING (run_uuid)
        WHERE tags.key = '{ROW}' AND tags.value = ? AND open.key = '{OPEN}' AND open.value = 'true'
        AND other.lifecycle_stage = 'active')
"""


def publish_row(spec: RowSpec) -> str | None:
    """Complete and close the row of this state, unless that was done, and return its run id.

    Rows that an earlier call could not deliver to this store follow. Where the store is away, the row is kept under
    `<state_dir>/pending/`, one warning says so, and None is returned.
    """
    run_id = _published_here(spec)
    if run_id is not None:
        return run_id
    content = read_content(spec)
    try:
        with reachable(spec.tracking_uri):
            run_id = _deliver(spec, content)
    except StoreUnavailableError as error:
        _keep(spec)
        _warn(f"{error}; nothing is lost: the row is kept in {_pending(spec)}, and the next publish delivers it")
        return None
    shutil.rmtree(_kept_folder(spec), ignore_errors=True)
    _deliver_kept(spec)
    return run_id


def row_lock(spec: RowSpec) -> FileLock:
    """The lock that whoever writes the open row of these settings holds."""
    path = spec.state_dir / "locks" / f"row-{row_digest(spec)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _deliver(spec: RowSpec, content: Content) -> str:
    store, state = Store(spec), state_digest(spec)
    with row_lock(spec).acquire(timeout=_LOCK_TIMEOUT_S):
        run_id = store.find(**{STATE: state})
        if run_id is None:
            run_id = _complete(store, spec, content)
            store.close_row(run_id, status="FINISHED", tags=_closing_tags(spec, content))
        else:  # the stages ran again and gave the same bytes: what they sent live is told already
            duplicate = store.find(**{ROW: row_digest(spec), OPEN: "true"})
            if duplicate is not None:
                store.delete_row(duplicate)
    store.end_orphans()
    store.show_columns(spec.columns)
    _write_receipt(spec, run_id)
    return run_id


def _complete(store: Store, spec: RowSpec, content: Content) -> str:
    """Bring the open row to what the folders say, and return its run id.

    Points cannot be taken back. So a row that holds others, from a run of code that was changed before it ended, is
    given up as KILLED.
    """
    run_id = store.open_row(spec, owner_pid=os.getpid())
    known = store.read_points(run_id)
    if any(content.points.get(at) != value for at, value in known.items()):
        store.close_row(
            run_id, status="KILLED", tags={"mlflow.note.content": "Given up: run again with other results."}
        )
        run_id, known = store.create_row(spec, owner_pid=os.getpid()), {}
    store.log_points(run_id, {at: value for at, value in content.points.items() if at not in known})
    store.log_files(run_id, files_of(spec))
    return run_id


def _closing_tags(spec: RowSpec, content: Content) -> dict[str, str]:
    notes = list(content.notes)
    if content.num_dropped:
        notes.append(f"{content.num_dropped} values were not finite and are left out of the curves")
    tags = {STATE: state_digest(spec), "unfreeze.stages": " ".join(spec.folders)}
    return tags | ({"mlflow.note.content": "\n".join(f"- {note}" for note in notes)} if notes else {})


def _published_here(spec: RowSpec) -> str | None:
    """The run id where a receipt and the local database say that nothing is left to do.

    Without MLflow, whose import would cost two seconds at every no-op. A server is always asked.
    """
    database, receipt = sqlite_file(spec.tracking_uri), _receipt(spec)
    if database is None or not receipt.exists() or next(iter(_kept_specs(spec)), None) is not None:
        return None
    known = json.loads(receipt.read_bytes())
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute(_FINISHED_AND_NONE_OPEN, (known["run_id"], row_digest(spec))).fetchone()[0]
        return str(known["run_id"]) if found else None
    return None


def _receipt(spec: RowSpec) -> Path:
    return spec.state_dir / "published" / f"{delivery_digest(spec)}.json"


def _write_receipt(spec: RowSpec, run_id: str) -> None:
    path = _receipt(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"run_id": run_id, "tracking_uri": spec.tracking_uri}), encoding="utf-8")
    draft.replace(path)


def _pending(spec: RowSpec) -> Path:
    return spec.state_dir / "pending"


def _kept_folder(spec: RowSpec) -> Path:
    return _pending(spec) / delivery_digest(spec)


def _keep(spec: RowSpec) -> None:
    """Copy what the row needs: the folders will be overwritten by the next state."""
    target = _kept_folder(spec)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    for stage, folder in spec.folders.items():
        (draft / stage).mkdir()
        for file in (file for pattern in _KEPT for file in folder.glob(pattern)):
            shutil.copyfile(file, draft / stage / file.name)
        if (folder / "model").is_dir():
            (draft / stage / "model").symlink_to((folder / "model").resolve())
    folders = {stage: target / stage for stage in spec.folders}
    replace(spec, folders=folders, tags={**origin_tags(spec.root), **spec.tags}).write(draft / "spec.json")
    draft.rename(target)


def _kept_specs(spec: RowSpec) -> dict[Path, RowSpec]:
    """Rows that wait for this store, by folder, oldest first."""
    files = sorted(_pending(spec).glob("[!.]*/spec.json"), key=lambda f: f.stat().st_mtime)
    kept = {file.parent: RowSpec.read(file) for file in files}
    return {folder: k for folder, k in kept.items() if k.tracking_uri == spec.tracking_uri}


def _deliver_kept(spec: RowSpec) -> None:
    with (
        suppress(Timeout),
        FileLock(spec.state_dir / "locks" / "pending.lock", timeout=0),
    ):  # else another process does it
        for folder, kept in _kept_specs(spec).items():
            _drop_replaced_models(kept)
            try:
                with reachable(spec.tracking_uri):
                    _deliver(kept, read_content(kept))
            except StoreUnavailableError as error:
                _warn(f"{error}; an older row stays in {folder}, and the next publish tries again")
                return
            shutil.rmtree(folder)


def _drop_replaced_models(kept: RowSpec) -> None:
    """Remove the link to a model where the folder that it points into holds another state by now, or none."""
    for folder in kept.folders.values():
        link = folder / "model"
        if link.is_symlink():
            origin = link.readlink().parent / "stage.json"
            if not origin.exists() or origin.read_bytes() != (folder / "stage.json").read_bytes():
                link.unlink()


def _warn(text: str) -> None:
    print(f"tracking: {text}", file=sys.stderr)
