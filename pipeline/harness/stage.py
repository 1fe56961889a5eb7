"""What a stage is: its declared reads, its identity, its lock, its scratch, and the publication of its folder.

A stage writes into a scratch folder named after its identity: a digest of the settings, inputs and code that it
consumes. When it is done, one rename makes the scratch's `out/` the artifact folder. So whoever finds an artifact
folder finds it complete, and a killed stage goes on where it was, unless anything it consumes has changed.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from pipeline.console import complain, progress_bar, say
from pipeline.files import read_json, write_text
from pipeline.harness.fingerprints import code_fingerprint
from pipeline.journal import Journal, write_history
from pipeline.params import flatten, load_params
from pipeline.paths import state_dir
from pipeline.settings import Runtime, Settings, read_settings, with_environment
from pipeline.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]
"""Where the code is."""

Metrics = dict[str, Any]


class UndeclaredReadError(Exception):
    """A stage read a setting or an input that it does not declare: a fault of the stage, not of its user."""


@dataclass(frozen=True)
class Stage:
    """A step of the pipeline. `dvc.yaml` says the same of it, which a test proves."""

    name: str
    run: Callable[["StageContext"], Metrics]
    """Does the work: reads through its context, writes into `context.out`, returns the final metrics."""
    settings: tuple[str, ...]
    """Dotted keys of the settings and sections that it reads; `runtime` is open to all and hashed for none."""
    inputs: tuple[str, ...] = ()
    """Stages whose folder it reads, or single files of one (`config/weights.json`)."""
    objective: str | None = None
    """The metric (dotted) that a sweeper minimises when the stage is run by hand."""
    uses_torch: bool = True
    """Whether torch's version, the device and the number of threads have a part in the result."""

    @property
    def module(self) -> str:
        return f"stages.{self.name}"


@dataclass(frozen=True)
class Places:
    """Where a stage reads and writes."""

    inputs: Mapping[str, Path]
    """The folder of each stage that has run."""
    target: Path
    """The folder that this stage is to make."""
    state: Path
    """`.unfreeze/`: scratch, locks and timings, shared by all working copies of a checkout."""


@dataclass(frozen=True)
class StageContext:
    """All that a running stage may touch."""

    stage: Stage
    settings: Settings
    """Only what the stage declares; reading another setting raises UndeclaredReadError."""
    runtime: Runtime
    out: Path
    """Becomes the artifact folder."""
    scratch: Path
    """Survives a kill, and is gone once the stage is done."""
    journal: Journal
    folders: Mapping[str, Path]
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    """What the stage measured by the clock, by name: kept beside its folder, for the clock is no part of the result."""

    def input(self, name: str) -> Path:
        """The folder of an upstream stage, or one file of it. Raises UndeclaredReadError unless it is declared."""
        if name not in self.stage.inputs:
            raise UndeclaredReadError(f"stage {self.stage.name} reads {name}, but declares {self.stage.inputs}")
        return _input_path(name, self.folders)

    @property
    def workspace(self) -> Workspace:
        """Where the library trains for this stage; the stage must declare `seed`."""
        return Workspace(
            self.stage.name,
            self.settings.seed,
            self.out,
            self.scratch,
            self.journal,
            self.runtime.checkpoint_s,
            self.say,
            partial(progress_bar, self.stage.name),
        )

    def say(self, text: str) -> None:
        say(self.stage.name, text)


def main(stage: Stage) -> None:
    """Entry point of every stage module: under DVC the stage runs on params.yaml, by hand as a Hydra app."""
    if "DVC_STAGE" in os.environ:
        sys.exit(_run_under_dvc(stage))
    # By name, and so no dependency of the stage: DVC never runs what stands there.
    import_module("pipeline.harness.by_hand").main([stage])


def execute(stage: Stage, params: Mapping[str, Any], runtime: Runtime, places: Places) -> Metrics:
    """Run `stage` and publish its folder; returns its metrics.

    Raises ValueError or OSError for what the user can mend: bad settings, a missing input, a busy folder.
    """
    settings = read_settings(dict(params), source="settings")
    declared = declared_settings(stage, params)
    digests = {name: _input_digest(name, places.inputs, stage) for name in stage.inputs}
    environment = _prepare_torch(runtime) if stage.uses_torch else {}
    record = {"stage": stage.name, "settings": declared, "inputs": digests, "environment": environment}
    identity = _digest(record | {"code": code_digest(stage)})[:20]

    with _lock(places.state, f"folder-{_digest(str(places.target.resolve()))[:20]}", stage.name, identity):
        if (done := _already_published(places, identity)) is not None:
            return done
        with _lock(places.state, f"scratch-{identity}", stage.name, identity):
            scratch = places.state / "scratch" / f"{stage.name}-{identity}"
            return _run_in(scratch, stage, settings, runtime, places, record, identity)


def declared_settings(stage: Stage, params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, flat, that `stage` declares."""
    flat = flatten(dict(params))
    covered = {k: v for k, v in flat.items() if any(_covers(d, k) for d in stage.settings)}
    unknown = [d for d in stage.settings if not any(_covers(d, k) for k in flat)]
    assert not unknown, f"stage {stage.name} declares settings that do not exist: {unknown}"
    return covered


def code_digest(stage: Stage) -> str:
    """Digest of every file of this project that the stage's code is made of."""
    return _digest(code_fingerprint(stage.module, PROJECT))


def read_record(folder: Path) -> dict[str, Any]:
    """What a published folder says of itself. Raises FileNotFoundError with the way to make it."""
    return read_published(folder / "stage.json")


def read_published(file: Path) -> dict[str, Any]:
    """Read a JSON file of a published folder. Raises FileNotFoundError with the way to make it."""
    try:
        values: dict[str, Any] = read_json(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file.parent} is missing: run `dvc repro {file.parent.name}` first") from None
    return values


def _run_under_dvc(stage: Stage) -> int:
    if len(sys.argv) > 1:
        complain(stage.name, f"overrides are not read under DVC: {sys.argv[1:]}; use `dvc exp run -S key=value`")
        return 1
    try:
        params = load_params(Path("params.yaml"))
        runtime = with_environment(read_settings(params, source="params.yaml").runtime)
        names = {name.partition("/")[0] for name in stage.inputs}
        places = Places({n: Path("artifacts") / n for n in names}, Path("artifacts") / stage.name, state_dir())
        execute(stage, params, runtime, places)
    except KeyboardInterrupt:
        complain(stage.name, "stopped; the same command goes on from here")
        return 130
    except (ValueError, OSError) as error:
        complain(stage.name, f"{error}\n{'':<23}(where it arose: {_keep_traceback(stage)})")
        return 1
    return 0


def _run_in(
    scratch: Path,
    stage: Stage,
    settings: Settings,
    runtime: Runtime,
    places: Places,
    record: dict[str, Any],
    identity: str,
) -> Metrics:
    out = scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    began = time.monotonic()
    follower = _Follower(stage, runtime, places.state, scratch / "journal.jsonl")
    journal = Journal(follower.journal, on_append=follower.wake)
    seconds_before = _seconds_spent(scratch)
    try:
        guarded = cast(Settings, _Declared(settings, stage))
        context = StageContext(stage, guarded, runtime, out, scratch, journal, places.inputs)
        metrics = stage.run(context)
    finally:
        journal.close()
        follower.stop()
        write_text(scratch / "seconds.json", json.dumps(seconds_before + time.monotonic() - began))
    write_text(out / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    if journal.path.stat().st_size:
        shutil.copyfile(journal.path, out / "journal.jsonl")
        write_history(journal.path, out / "history.csv")
    record = record | {"digest": _folder_digest(out)}
    write_text(out / "stage.json", json.dumps(record, indent=1) + "\n")
    seconds = _seconds_spent(scratch)
    _keep_timings(places.state, record["digest"], {"seconds": seconds, **context.timings})
    _publish(out, places.target)
    write_text(_receipt(places), json.dumps([identity, _folder_digest(places.target)]))
    shutil.rmtree(scratch)
    say(stage.name, f"done in {seconds:.1f} s")
    return metrics


def _publish(out: Path, target: Path) -> None:
    """Make `out` the folder `target` in one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.stat(out).st_dev != os.stat(target.parent).st_dev:  # noqa: PTH116
        near = target.with_name(f".{target.name}.incoming")
        shutil.rmtree(near, ignore_errors=True)
        out = Path(shutil.copytree(out, near))
    if target.exists():
        old = target.with_name(f".{target.name}.outgoing")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        out.rename(target)
        shutil.rmtree(old)
    else:
        out.rename(target)


class _Declared:
    """A view of settings that shows only what the stage declares."""

    def __init__(self, section: Any, stage: Stage, prefix: str = "") -> None:
        self._section, self._stage, self._prefix = section, stage, prefix

    def __getattr__(self, name: str) -> Any:
        key = f"{self._prefix}{name}"
        value = getattr(self._section, name)
        if any(_covers(declared, key) for declared in self._stage.settings):
            return value
        if dataclasses.is_dataclass(value) and any(d.startswith(f"{key}.") for d in self._stage.settings):
            return _Declared(value, self._stage, f"{key}.")
        raise UndeclaredReadError(f"stage {self._stage.name} reads {key}, but declares {self._stage.settings}")


class _Follower:
    """Shows a stage live in MLflow: a process of its own, so that a slow server cannot hold up training."""

    def __init__(self, stage: Stage, runtime: Runtime, state: Path, journal: Path) -> None:
        self.journal = journal
        self._due = time.monotonic() + runtime.live_s if _tracked_live(runtime) else float("inf")
        self._stage, self._runtime, self._state = stage, runtime, state
        self._process: Any = None

    def wake(self) -> None:
        """Start the process once the stage has run for `runtime.live_s`."""
        if time.monotonic() >= self._due:
            self._due = float("inf")
            # By name, and so no dependency of the stage: what MLflow is told changes nothing in the result.
            start = import_module("pipeline.harness.delivery").start_follower
            self._process = start(
                stage=self._stage.name, runtime=self._runtime, state=self._state, journal=self.journal
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.stdin.close()


def _tracked_live(runtime: Runtime) -> bool:
    return runtime.tracking and "DVC_STAGE" in os.environ


class _lock:  # noqa: N801
    """Hold an OS lock. Whoever else holds it is named; the same work is waited for, other work refused."""

    def __init__(self, state: Path, name: str, stage: str, identity: str) -> None:
        self._path = state / "locks" / name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{self._path}.lock")
        self._stage, self._identity = stage, identity

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            owner = self._owner()
            held = f"process {owner.get('pid', '?')} is still running this stage"
            if owner.get("identity") not in (None, self._identity):
                raise BlockingIOError(
                    f"{held} with other settings or code (started by an earlier run): wait for it or stop it with "
                    f"`kill {owner['pid']}`, then run again"
                ) from None
            say(self._stage, f"{held}: waiting for it (to stop it: kill {owner.get('pid', '?')})")
            self._lock.acquire()
        self._path.with_suffix(".json").write_text(json.dumps({"pid": os.getpid(), "identity": self._identity}))

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _owner(self) -> dict[str, Any]:
        for _ in range(20):  # the owner writes its name just after it took the lock
            try:
                owner: dict[str, Any] = json.loads(self._path.with_suffix(".json").read_text())
            except (FileNotFoundError, ValueError):
                time.sleep(0.05)
            else:
                return owner
        return {}


def _already_published(places: Places, identity: str) -> Metrics | None:
    """The metrics of the folder if another process published it with this very identity while we waited."""
    receipt = _receipt(places)
    if not (receipt.exists() and (places.target / "stage.json").exists()):
        return None
    if json.loads(receipt.read_text()) != [identity, _folder_digest(places.target)]:
        return None
    metrics: Metrics = json.loads((places.target / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _receipt(places: Places) -> Path:
    return places.state / "locks" / f"folder-{_digest(str(places.target.resolve()))[:20]}.done.json"


def _covers(declared: str, key: str) -> bool:
    return key == declared or key.startswith(f"{declared}.")


def _input_path(name: str, folders: Mapping[str, Path]) -> Path:
    stage, _, file = name.partition("/")
    return folders[stage] / file if file else folders[stage]


def _input_digest(name: str, folders: Mapping[str, Path], stage: Stage) -> str:
    path = _input_path(name, folders)
    if "/" not in name:
        return str(read_record(path)["digest"])
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro {stage.name}`")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder_digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return _digest({p.relative_to(folder).as_posix(): _file_digest(p) for p in files})


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _prepare_torch(runtime: Runtime) -> dict[str, Any]:
    """Fix what torch's numbers depend on, and say it: equal records promise equal results."""
    from pipeline.model.compute import prepare

    return prepare(runtime)


def _seconds_spent(scratch: Path) -> float:
    file = scratch / "seconds.json"
    return float(json.loads(file.read_text())) if file.exists() else 0.0


def _keep_timings(state: Path, digest: str, timings: Mapping[str, float]) -> None:
    """Remember what a folder cost, beside it rather than in it: the clock is no part of the result."""
    folder = state / "timings"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{digest}.json", json.dumps({name: round(value, 2) for name, value in timings.items()}))


def _keep_traceback(stage: Stage) -> Path:
    folder = state_dir() / "errors"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{stage.name}.txt"
    file.write_text(traceback.format_exc(), encoding="utf-8")
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
