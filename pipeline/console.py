"""What a person sees of a run: one line per event that matters, and progress bars in a terminal."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline.workspace import Bar

_console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(stage: str, text: str) -> None:
    """Print one line."""
    _console.print(f"  {stage:<20} {text}", markup=False)


def complain(stage: str, text: str) -> None:
    """Print an error: what is wrong, and what to do."""
    _console.print(f"  {stage:<20} error: {text}", markup=False, style="bold red")


def show(lines: Iterable[str]) -> None:
    """Print lines as they are: a table, or what a whole run found."""
    for line in lines:
        _console.print(line, markup=False)


class _VisibleBar(Bar):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1, *, note: str = "") -> None:
        self._progress.update(self._task, advance=count, note=note)


@contextmanager
def progress_bar(stage: str, total: int, *, start: int = 0) -> Iterator[Bar]:
    """Show a bar with the time left while the block runs, in a terminal; elsewhere (CI, files) nothing."""
    can_show = _console.is_terminal and not _console.is_dumb_terminal and sys.stderr.isatty()
    if os.environ.get("CI") or not can_show:
        yield Bar()
        return
    columns = (
        TextColumn(f"  {stage:<20}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("left  {task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=_console, transient=True) as progress:
        yield _VisibleBar(progress, progress.add_task(stage, total=total, completed=start, note=""))
