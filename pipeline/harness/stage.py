"""What a stage is: what it declares, and the context that it runs in."""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.journal import Journal
from pipeline.settings import Runtime
from pipeline.workspace import OpenBar, Workspace

FORMAT = 2
"""The version of what the harness writes into a published folder: part of every fingerprint.

The harness itself is left out of fingerprints, so raise this by hand when `stage.json`, `metrics.json`, `journal.jsonl`
or `history.csv` change in a way that later stages or readers must know.
"""

Metrics = dict[str, Any]
Reads = TypeVar("Reads")
"""A frozen dataclass: the part of the settings that a stage reads, under the same names as in `Settings`."""


class UndeclaredReadError(Exception):
    """A stage read an input that it does not declare: a bug in the stage, not a mistake of its user."""


@dataclass(frozen=True, order=True)
class Input:
    """What a stage reads of another: its folder, or one file of it."""

    stage: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.stage}/{self.file}" if self.file else self.stage

    @property
    def watched(self) -> str:
        """The file below `artifacts/` that DVC watches: a folder is known by the digest in its `stage.json`."""
        return f"{self.stage}/{self.file or 'stage.json'}"

    def path(self, folders: Mapping[str, Path]) -> Path:
        """The folder or file; `folders` maps stages to theirs."""
        return folders[self.stage] / self.file if self.file else folders[self.stage]


@dataclass(frozen=True)
class Stage(Generic[Reads]):
    """One step of the pipeline. `dvc.yaml` is written from it."""

    name: str
    run: Callable[["StageContext[Reads]"], Metrics]
    """Does the work: reads through its context, writes into `context.out`, returns the final metrics."""
    reads: type[Reads]
    """The settings that it reads. `runtime` is open to every stage and hashed for none."""
    inputs: tuple[Input, ...] = ()
    objective: str | None = None
    """The metric (dotted) that a sweeper minimises when the stage is run by hand."""
    uses_torch: bool = True
    """Whether torch's version, the device and the number of threads affect the result."""
    is_shared: bool = False
    """Whether several processes compute it, where `runtime.processes` asks for them; see `pipeline.model.ranks`."""

    @property
    def module(self) -> str:
        return f"stages.{self.name}"

    @property
    def upstream(self) -> list[str]:
        """Names of the stages whose results it reads, in order of declaration."""
        return list(dict.fromkeys(i.stage for i in self.inputs))

    @property
    def settings(self) -> list[str]:
        """Dotted keys of the settings that it reads, one by one: a setting that is added to a section later, and that
        this stage does not read, changes nothing here."""
        return list(dotted_keys(self.reads))


@dataclass(frozen=True)
class StageContext(Generic[Reads]):
    """All that a running stage may touch."""

    stage: Stage[Reads]
    settings: Reads
    runtime: Runtime
    out: Path
    """Becomes the artifact folder."""
    scratch: Path
    """Survives a kill, and is removed once the stage is done."""
    journal: Journal
    folders: Mapping[str, Path]
    say: Callable[[str], None]
    """Shows a person one line; see `Workspace.say`."""
    progress: OpenBar
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    """Durations that the stage measured, by name. They are kept beside its folder: clock time is not a result."""

    @property
    def state(self) -> Path:
        """`.unfreeze/`, where what outlives a run is kept."""
        return self.scratch.parents[1]

    def input(self, stage: str, file: str | None = None) -> Path:
        """The folder of an upstream stage, or one file of it. Raises UndeclaredReadError unless it is declared."""
        wanted = Input(stage, file)
        if wanted not in self.stage.inputs:
            declared = ", ".join(map(str, self.stage.inputs)) or "nothing"
            raise UndeclaredReadError(f"stage {self.stage.name} reads {wanted}, but declares {declared}")
        return wanted.path(self.folders)

    @cached_property
    def workspace(self) -> Workspace:
        """Where the library trains for this stage; `settings` must have `seed`."""
        seed: int = self.settings.seed  # type: ignore[attr-defined]
        checkpoint_s = self.runtime.checkpoint_s
        return Workspace(
            self.stage.name, seed, self.out, self.scratch, self.journal, checkpoint_s, self.say, self.progress
        )


def dotted_keys(reads: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every value in a dataclass of settings, sections opened up."""
    for name, kind in _fields(reads):
        if dataclasses.is_dataclass(kind):
            yield from dotted_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def select(reads: type[Reads], settings: object) -> Reads:
    """Build `reads` from the equally named parts of `settings`. Raises AttributeError for a name that is not there."""
    values = {}
    for name, kind in _fields(reads):
        value = getattr(settings, name)
        part = dataclasses.is_dataclass(kind) and type(value) is not kind
        values[name] = select(kind, value) if part else value
    return reads(**values)


def _fields(reads: type) -> Iterator[tuple[str, type]]:
    hints = typing.get_type_hints(reads)
    return ((field.name, hints[field.name]) for field in dataclasses.fields(reads))
