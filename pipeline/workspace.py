"""Where a stage works: the name and seed of its random draws, its folders, its journal, and what it shows."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.journal import Journal
from pipeline.stopping import raise_if_requested


class Bar:
    """A progress bar that shows nothing; the console has one that does.

    It moves when something is done, which makes it the place to stop at: `advance` raises Stopped if that was asked.
    """

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Move by `count`; `note` is shown behind the bar."""
        del count, note
        raise_if_requested()


class OpenBar(Protocol):
    """Opens a progress bar over `total` items, of which `start` are done."""

    def __call__(self, total: int, *, start: int = 0) -> AbstractContextManager[Bar]: ...


def no_bar(total: int, *, start: int = 0) -> AbstractContextManager[Bar]:
    """Open a bar that shows nothing."""
    del total, start
    return nullcontext(Bar())


def say_nothing(text: str) -> None:
    """Drop a line."""
    del text


@dataclass(frozen=True)
class Workspace:
    """What training and the finder get from the harness."""

    name: str
    """The stage's; with `seed` it decides every random draw."""
    seed: int
    out: Path
    """For results."""
    scratch: Path
    """Survives a kill."""
    journal: Journal
    checkpoint_s: float
    """Seconds between checkpoints: a kill costs no more work than that."""
    say: Callable[[str], None] = say_nothing
    """Shows a person one line. Nothing may depend on it: lines are not part of a stage's fingerprint."""
    progress: OpenBar = no_bar
