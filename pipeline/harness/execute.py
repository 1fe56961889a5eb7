"""How a stage is run: its identity, its scratch folder, and the publication of its result in one rename.

A stage writes into a scratch folder named after its identity: a digest of the settings, inputs and code that it
consumes. When it is done, one rename makes the scratch's `out/` the artifact folder. So an artifact folder that exists
is complete, and a killed stage resumes where it was, unless anything it consumes has changed.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pipeline.files import copy_file, digest, file_digest, read_json, remove_folder, write_json
from pipeline.harness.fingerprints import code_digest
from pipeline.harness.helper import of_process
from pipeline.harness.job_record import PrunedError
from pipeline.harness.lock import hold_lock
from pipeline.harness.published import (
    RECORD,
    DamagedError,
    check_folder,
    complete_record,
    is_complete,
    publish,
    read_record,
    write_record,
)
from pipeline.harness.stage import Input, Metrics, Reads, Stage, StageContext, select
from pipeline.harness.team import helped, num_processes
from pipeline.journal import Journal, write_history
from pipeline.kept import read_kept, write_kept
from pipeline.params import flatten
from pipeline.settings import Runtime, read_settings
from pipeline.timings import Span, read_timings, write_timings
from pipeline.workspace import Bar


@dataclass(frozen=True)
class StageFolders:
    """Where a stage reads and writes."""

    inputs: Mapping[str, Path]
    """The folder of each stage that has run."""
    target: Path
    """The folder that this stage makes."""
    state: Path
    """`.unfreeze/`: scratch, locks and timings, shared by all working copies of a checkout."""

    @property
    def all(self) -> dict[str, Path]:
        """The inputs and the folder made, by stage."""
        return {**self.inputs, self.target.name: self.target}


class OpenStageBar(Protocol):
    """Opens a progress bar for a stage."""

    def __call__(self, stage: str, total: int, *, start: int = 0) -> AbstractContextManager[Bar]: ...


def _silent_bar(stage: str, total: int, *, start: int = 0) -> AbstractContextManager[Bar]:
    del stage, total, start
    return nullcontext(Bar())


def _silent(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Audience:
    """What a running stage is shown to. The code that starts the stage gives it; it changes nothing in the result."""

    say: Callable[[str, str], None] = _silent
    """Prints (stage, line)."""
    progress: OpenStageBar = _silent_bar
    follow: Callable[[str, Path], AbstractContextManager[Callable[[], None]]] = lambda _stage, _journal: nullcontext(
        _silent
    )
    """Follows (stage, journal) while the stage runs; what it gives is called after each line of the journal."""
    report: Callable[[str, Mapping[str, Path], Mapping[str, float]], None] = _silent
    """Draws and sums up a stage that is done, from (stage, folders by stage, timings)."""


def execute(
    stage: Stage[Reads],
    params: Mapping[str, Any],
    runtime: Runtime,
    folders: StageFolders,
    audience: Audience = Audience(),
) -> Metrics:
    """Run `stage` and publish its folder; returns its metrics.

    Raises ValueError or OSError for what the user can fix: bad settings, a missing input, a folder in use.
    """
    settings = select(stage.reads, read_settings(dict(params), source="settings"))
    declared = declared_settings(stage, params)
    inputs = [{"stage": i.stage, "file": i.file, "digest": _input_digest(i, folders, stage)} for i in stage.inputs]
    processes = num_processes(stage, runtime)
    environment = _prepare_torch(runtime) if stage.uses_torch else {}
    record = {"stage": stage.name, "settings": declared, "inputs": inputs, "environment": environment}
    identity = digest(record | {"code": code_digest(stage.module)})[:20]  # goes on with another number of processes
    say = partial(audience.say, stage.name)

    with hold_lock(_folder_lock(folders), identity=identity, say=say):
        scratch = folders.state / "scratch" / f"{stage.name}-{identity}"
        if (done := _already_published(folders, identity)) is not None:
            remove_folder(scratch)  # of a run that was killed after it had published
            return done
        with hold_lock(folders.state / "locks" / f"scratch-{identity}", identity=identity, say=say):
            if not is_complete(scratch / "out"):
                try:
                    together = helped(stage, params, runtime, folders.inputs, scratch, processes)
                    if processes > 1:
                        say(f"computed by {processes} processes")
                        runtime = of_process(runtime, 0)
                    _run_in(scratch, stage, settings, runtime, folders, audience, record, processes, together)
                except PrunedError:
                    remove_folder(scratch)  # nobody goes on with it
                    raise
            publish(scratch / "out", folders.target)
            check_folder(folders.target, state=folders.state, by_content=True)
            published = read_record(folders.target)["digest"]
            write_kept(_receipt(folders), [identity, published])
            remove_folder(scratch)
    metrics: Metrics = read_json(folders.target / "metrics.json")
    timings = read_timings(folders.state, published)
    audience.report(stage.name, folders.all, timings)
    say(f"done in {timings.get('seconds', 0.0):.1f} s")
    return metrics


def declared_settings(stage: Stage[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, flat, that `stage` reads."""
    flat = flatten(dict(params))
    return {key: flat[key] for key in stage.settings}


def _run_in(
    scratch: Path,
    stage: Stage[Reads],
    settings: Reads,
    runtime: Runtime,
    folders: StageFolders,
    audience: Audience,
    record: dict[str, Any],
    processes: int,
    together: AbstractContextManager[None],
) -> None:
    """Run the stage in its scratch folder, whose `out/` is complete afterwards; `together` starts other processes."""
    out, journal_file = scratch / "out", scratch / "journal.jsonl"
    remove_folder(out)
    out.mkdir(parents=True)
    for draft in scratch.rglob(".*"):  # that a kill left
        draft.unlink()
    began, seconds_before, started = time.monotonic(), _seconds_spent(scratch), _started(scratch)
    if stage.is_shared:
        record["environment"]["processes"] = _processes_so_far(scratch, processes)
    try:
        with audience.follow(stage.name, journal_file) as wake:
            journal = Journal(journal_file, on_append=wake)
            context = StageContext(
                stage,
                settings,
                runtime,
                out,
                scratch,
                journal,
                folders.inputs,
                partial(audience.say, stage.name),
                partial(audience.progress, stage.name),
            )
            try:
                with together:
                    metrics = stage.run(context)
                journal.end()
            finally:
                journal.close()
    finally:
        seconds = seconds_before + time.monotonic() - began
        with suppress(OSError):  # where the disk is full, that is what should be said
            write_kept(scratch / "seconds.json", seconds)
    write_json(out / "metrics.json", metrics)
    if journal_file.stat().st_size:
        copy_file(journal_file, out / "journal.jsonl")
        write_history(journal_file, out / "history.csv")
    timings = {"seconds": seconds, **context.timings}
    record = complete_record(out, record)
    write_timings(folders.state, record["digest"], timings, Span(started, time.time()))
    write_record(out, record)


def _already_published(folders: StageFolders, identity: str) -> Metrics | None:
    """The metrics of the folder if another process published it with this very identity while we waited."""
    receipt = read_kept(_receipt(folders))
    if receipt is None or not (folders.target / RECORD).exists():
        return None
    try:
        if receipt != [identity, read_record(folders.target)["digest"]]:
            return None
        check_folder(folders.target, state=folders.state)
    except DamagedError:
        return None
    metrics: Metrics = read_json(folders.target / "metrics.json")
    return metrics


def _folder_lock(folders: StageFolders) -> Path:
    return folders.state / "locks" / f"folder-{digest(str(folders.target.resolve()))[:20]}"


def _receipt(folders: StageFolders) -> Path:
    lock = _folder_lock(folders)
    return lock.with_name(f"{lock.name}.done.json")


def _input_digest(wanted: Input, folders: StageFolders, stage: Stage[Any]) -> str:
    path = wanted.path(folders.inputs)
    if wanted.file is None:
        check_folder(path, state=folders.state)
        return str(read_record(path)["digest"])
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro {stage.name}`")
    return file_digest(path)


def _prepare_torch(runtime: Runtime) -> dict[str, Any]:
    """Fix what torch's numbers depend on, and record it: equal records promise equal results."""
    from pipeline.model.compute import prepare

    return prepare(runtime)


def _started(scratch: Path) -> float:
    """When the stage began, in seconds since 1970: for one that was killed and goes on, the first time."""
    file = scratch / "started.json"
    started = read_kept(file)
    if started is None:
        write_kept(file, started := time.time())
    return float(started)


def _processes_so_far(scratch: Path, processes: int) -> int | list[int]:
    """How many processes compute the stage: all numbers, in order, if a killed run had others."""
    file = scratch / "processes.json"
    known: list[int] = read_kept(file) or []
    if known[-1:] != [processes]:
        write_kept(file, known := [*known, processes])
    return processes if len(known) == 1 else known


def _seconds_spent(scratch: Path) -> float:
    return float(read_kept(scratch / "seconds.json") or 0.0)
