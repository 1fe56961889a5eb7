"""What a person sees of a run: one line per event that matters, and progress bars in a terminal.

A terminal gets lines that break between words, and never within a command in back quotes, so that it can be copied as a
whole. Files and pipes get each text as one line. Control characters in names are shown as escapes.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # rich takes as long to import as Python to start: only a program that says something loads it
    from rich.console import Console
    from rich.progress import Progress, TaskID

from pipeline.printable import printable
from pipeline.workspace import Bar


@cache
def _console() -> "Console":
    """Made at the first line, because it looks at the terminal only once, and a warm process has none."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


_NAMES = 23
"""Columns that the name of the stage takes, with what is around it."""
_WORD = re.compile(r"\s*(?:`[^`\n]+`|\S)+")
"""A word with the spaces before it. A command in back quotes is one."""


def say(stage: str, text: str) -> None:
    """Print one line."""
    _show(f"  {stage:<20} {text}", indent=_NAMES)


def complain(stage: str, text: str) -> None:
    """Print an error: what is wrong, and what to do."""
    _show(f"  {stage:<20} error: {text}", indent=_NAMES, style="bold red")


def note(text: str) -> None:
    """Print one line that belongs to no stage."""
    _show(text, indent=2)


def _show(text: str, *, indent: int, style: str = "") -> None:
    text = printable(text)
    lines = _broken(text, indent) if _console().is_terminal else [text]
    _console().print("\n".join(lines), markup=False, style=style)


def _broken(text: str, indent: int) -> list[str]:
    """`text` in lines that fit the terminal; the second and all further ones begin with `indent` spaces."""
    from rich.cells import cell_len

    width = _console().width
    margin = " " * (indent if width > 2 * indent else 2)
    lines: list[str] = []
    for part in text.splitlines():
        line = ""
        for word in _WORD.findall(part):
            if line.strip() and cell_len(line + word) > width:
                lines.append(line)
                line, word = margin, word.lstrip()
            line += word
        lines.append(line)
    return lines


def show(lines: Iterable[str]) -> None:
    """Print lines as they are: a table, or what a whole run found."""
    for line in lines:
        _console().print(printable(line), markup=False)


class _VisibleBar(Bar):
    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1, *, note: str = "") -> None:
        self._progress.update(self._task, advance=count, note=note)
        super().advance(count, note=note)


@contextmanager
def progress_bar(stage: str, total: int, *, start: int = 0) -> Iterator[Bar]:
    """Show a bar with the time left while the block runs, in a terminal; elsewhere (CI, files) nothing."""
    can_show = _console().is_terminal and not _console().is_dumb_terminal and sys.stderr.isatty()
    if os.environ.get("CI") or not can_show:
        yield Bar()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(f"  {stage:<20}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("left  {task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=_console(), transient=True) as progress:
        yield _VisibleBar(progress, progress.add_task(stage, total=total, completed=start, note=""))
