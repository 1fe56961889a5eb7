"""Completes a row from the folders of all stages, once per state, and keeps it while the store is unavailable."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.console import note
from pipeline.files import atomic_folder, digest, folder_digest
from pipeline.kept import read_kept, write_kept
from pipeline.passwords import hide_known_passwords
from pipeline.processes import process_name
from pipeline.tracking.bounded import KEPT, READY, SENT, limit_memory, run_bounded, say_word
from pipeline.tracking.content import PREDICTIONS, Content, Points, drawn_files, files_of, read_content
from pipeline.tracking.models import log_model_once
from pipeline.tracking.open_rows import LOCK_TIMEOUT_S, forget_open, row_lock
from pipeline.tracking.origin import origin_tags
from pipeline.tracking.spec import RowSpec, delivery_digest, drawn_digest, row_digest, sqlite_file, state_digest
from pipeline.tracking.store import NOTE, OPEN, ROW, STATE, Store, StoreUnavailableError, load, reachable

_CONTENT = "content.json"
"""Beside a kept row: the digest of what was copied."""

_KEPT = ("stage.json", "metrics.json", "journal.jsonl", PREDICTIONS)
"""What is copied from each stage's folder while its row waits for delivery. The model is too large, so it is linked."""

_FINISHED_AND_NONE_OPEN = f"""
    SELECT count(*) FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active' AND status = 'FINISHED'
    AND NOT EXISTS (SELECT 1 FROM tags JOIN tags AS open USING (run_uuid) JOIN runs AS other USING (run_uuid)
        WHERE tags.key = '{ROW}' AND tags.value = ? AND open.key = '{OPEN}' AND open.value = 'true'
        AND other.lifecycle_stage = 'active')
"""


def publish_bounded(spec: RowSpec, command: Sequence[str], *, wait_s: float) -> None:
    """Have `command` publish the row, and wait at most `wait_s` seconds for a server; then the row is kept.

    `command` is a program that calls `publish_row` and says the words of `bounded`.
    """
    words = run_bounded(command, spec, wait_s=wait_s)
    if not words & {SENT, KEPT}:
        keep(spec)
        after = f"the server did not answer within {wait_s:g} s (runtime.tracking_s)" if READY in words else "it failed"
        _warn(f"{spec.tracking_uri}: {after}; the row is kept in {_pending(spec)}, and the next `publish` delivers it")


def publish_row(spec: RowSpec, *, on_sent: Callable[[str], object] = lambda _: None) -> str | None:
    """Complete and close the row of this state, unless that was done before, and return its run id.

    If only what was drawn has changed, the pictures and the report of the existing row are replaced; its description
    stays. `on_sent(run_id)` is called then. Rows that an earlier call could not deliver to this store are delivered
    afterwards. If the store is unavailable, the row is kept in `<state_dir>/pending/`, one warning says so, and None is
    returned.
    """
    run_id = published_here(spec)
    if run_id is None:
        content = read_content(spec)
        try:
            with reachable(spec.tracking_uri):
                run_id = _deliver(spec, content)
        except StoreUnavailableError as error:
            keep(spec)
            _warn(f"{error}; the row is kept in {_pending(spec)}, and the next `publish` delivers it")
            return None
        _drop_kept(_kept_folder(spec))
    on_sent(run_id)
    _deliver_kept(spec)
    return run_id


def send(file: Path, on_sent: Callable[[RowSpec, str], object] = lambda _spec, _run_id: None) -> None:
    """Publish the row of `file`, as the program that `publish_bounded` waits for."""
    spec = RowSpec.read(file)
    load(spec)
    if sqlite_file(spec.tracking_uri) is None:
        limit_memory()
    say_word(READY)

    def sent(run_id: str) -> None:
        say_word(SENT)
        on_sent(spec, run_id)

    try:
        if publish_row(spec, on_sent=sent) is None:
            say_word(KEPT)
    except Exception as error:  # without a traceback, which may name a password; the row is kept
        _warn(hide_known_passwords(f"{spec.tracking_uri}: {type(error).__name__}: {error}"))


def _deliver(spec: RowSpec, content: Content) -> str:
    store, state = Store(spec), state_digest(spec)
    with row_lock(spec).acquire(timeout=LOCK_TIMEOUT_S):
        run_id = store.find(**{STATE: state})
        if run_id is None:
            run_id = _complete(store, spec, content)
            store.close_row(run_id, spec, tags=_closing_tags(spec, content))
        else:
            _refresh(store, spec, run_id)
            # If the stages ran again with equal results, they opened a row that adds nothing.
            duplicate = store.find_open(spec)
            if duplicate is not None:
                store.delete_row(duplicate)
        forget_open(spec)
        log_model_once(spec, run_id)
    store.end_orphans()
    store.show_views(spec)
    _write_receipt(spec, run_id)
    return run_id


def _complete(store: Store, spec: RowSpec, content: Content) -> str:
    """Send what the open row lacks, and return its run id.

    MLflow cannot delete points. If the row has points that the folders do not have (the code was changed during a run),
    it is closed as KILLED and a new row is created.
    """
    owner = process_name(os.getpid())
    run_id = store.open_row(spec, owner=owner)
    known = store.read_points(run_id)
    if any(content.points.get(at) != value for at, value in known.items()):
        store.end_row(run_id, status="KILLED", note="- **Abandoned**: the stages ran again with other results.")
        run_id, known = store.create_row(spec, owner=owner), {}
    _log(store, spec, run_id, {at: value for at, value in content.points.items() if at not in known})
    return run_id


def _log(store: Store, spec: RowSpec, run_id: str, points: Points) -> None:
    """Send all that belongs to a row, except what closes it."""
    store.log_points(run_id, points)
    if spec.dataset is not None:
        store.log_dataset(run_id, spec.dataset)
    store.log_files(run_id, files_of(spec))


def _refresh(store: Store, spec: RowSpec, run_id: str) -> None:
    """Send the pictures, the report and the tags again if they differ from the receipt.

    MLflow cannot delete single files, so a picture that is no longer drawn stays in the row. A job that was run again
    moves to the sweep that ran last.
    """
    known = _read_receipt(spec)
    if known.get("drawn") != drawn_digest(spec):
        store.log_files(run_id, drawn_files(spec))
    if known.get("tags") != spec.tags:
        store.set_tags(run_id, spec.tags)


def _closing_tags(spec: RowSpec, content: Content) -> dict[str, str]:
    tags = {STATE: state_digest(spec), "unfreeze.stages": " ".join(spec.folders)}
    if content.num_dropped:
        tags["not_finite"] = f"{content.num_dropped} values are missing from the curves"
    return tags | {NOTE: "\n".join(f"- {line}" for line in spec.description)}


def published_here(spec: RowSpec) -> str | None:
    """Return the run id if a receipt and the local database show that there is nothing left to do.

    This does not import MLflow, which takes two seconds. A server is always asked.
    """
    database, known = sqlite_file(spec.tracking_uri), _read_receipt(spec)
    if database is None or not known or next(iter(waiting(spec)), None) is not None:
        return None
    if known.get("drawn") != drawn_digest(spec) or known.get("tags") != spec.tags:
        return None
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute(_FINISHED_AND_NONE_OPEN, (known["run_id"], row_digest(spec))).fetchone()[0]
        return str(known["run_id"]) if found else None
    return None


def _receipt(spec: RowSpec) -> Path:
    return spec.state_dir / "published" / f"{delivery_digest(spec)}.json"


def _read_receipt(spec: RowSpec) -> dict[str, Any]:
    return dict(read_kept(_receipt(spec)) or {})


def _write_receipt(spec: RowSpec, run_id: str) -> None:
    known = {"run_id": run_id, "tracking_uri": spec.tracking_uri, "drawn": drawn_digest(spec), "tags": spec.tags}
    write_kept(_receipt(spec), known)


def _pending(spec: RowSpec) -> Path:
    return spec.state_dir / "pending"


def _kept_folder(spec: RowSpec) -> Path:
    return _pending(spec) / delivery_digest(spec)


def keep(spec: RowSpec) -> None:
    """Copy what the row needs, because the next state overwrites the folders."""
    target = _kept_folder(spec)
    known = _load_kept(target)
    if known is not None and drawn_digest(known) == drawn_digest(spec):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Of equal runs that end at once, one is enough: what the other renamed here first is complete.
    with _unless_there(target), atomic_folder(target) as draft:
        folders = {}
        for stage, folder in spec.folders.items():
            place = "drawn" if folder == spec.drawn else f"stages/{stage}"
            folders[stage] = target / place
            if folder != spec.drawn:
                _copy_stage(folder, draft / place)
        drawn = None
        if spec.drawn is not None and spec.drawn.is_dir():
            drawn = target / "drawn"
            shutil.copytree(spec.drawn, draft / "drawn")
        tags = {**origin_tags(spec.root), **spec.tags}
        write_kept(draft / _CONTENT, _digest_of_kept(draft))
        replace(spec, folders=folders, drawn=drawn, tags=tags).write(draft / "spec.json")
        _drop_kept(target)  # the same state with other pictures


@contextmanager
def _unless_there(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        if not target.is_dir():
            raise


def _copy_stage(folder: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in (folder / name for name in _KEPT):
        if file.exists():
            shutil.copyfile(file, target / file.name)
    if (folder / "model").is_dir():
        (target / "model").symlink_to((folder / "model").resolve())


def _drop_kept(folder: Path) -> None:
    """Remove a kept row. Its spec goes first, so that a kill leaves no incomplete row that would be delivered."""
    (folder / "spec.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _digest_of_kept(folder: Path) -> str:
    """Digest of what was copied. The model is not: it is a link."""
    return digest([folder_digest(folder / part) for part in ("stages", "drawn") if (folder / part).is_dir()])


def _load_kept(folder: Path) -> RowSpec | None:
    """Read a kept row, whole; one that is damaged or of another version is dropped, with a line that names it."""
    if not (folder / "spec.json").exists():
        return None
    with suppress(OSError, ValueError):
        if read_kept(folder / _CONTENT) == _digest_of_kept(folder):
            return RowSpec.read(folder / "spec.json")
    _warn(f"{folder} is damaged, or of another version: this row, which was kept for later, is dropped")
    _drop_kept(folder)
    return None


def waiting(spec: RowSpec) -> dict[Path, RowSpec]:
    """Read the rows that wait for this store, by folder, oldest first."""
    files = sorted(_pending(spec).glob("[!.]*/spec.json"), key=lambda f: f.lstat().st_mtime)
    kept = {file.parent: _load_kept(file.parent) for file in files}
    return {folder: k for folder, k in kept.items() if k is not None and k.tracking_uri == spec.tracking_uri}


def _drop_replaced_models(kept: RowSpec) -> None:
    """Remove the link to a model if its stage's folder has since been replaced or deleted."""
    for folder in kept.folders.values():
        link = folder / "model"
        if link.is_symlink():
            origin = link.readlink().parent / "stage.json"
            if not origin.exists() or origin.read_bytes() != (folder / "stage.json").read_bytes():
                link.unlink()


def _deliver_kept(spec: RowSpec) -> None:
    # If the lock is taken, another process delivers them.
    with suppress(Timeout), FileLock(spec.state_dir / "locks" / "pending.lock", timeout=0):
        for folder, kept in waiting(spec).items():
            _drop_replaced_models(kept)
            try:
                with reachable(spec.tracking_uri):
                    _deliver(kept, read_content(kept))
            except StoreUnavailableError as error:
                _warn(f"{error}; an older row is still kept in {folder}, and the next `publish` tries again")
                return
            _drop_kept(folder)


def _warn(text: str) -> None:
    note(f"tracking: {text}")
