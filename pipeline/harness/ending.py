"""Shows a person how a run ended."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.console import show
from pipeline.report.ending import ending


def show_ending(folders: Mapping[str, Path], *, report: Path) -> None:
    """Print the score of an evaluated run, where its report is, and what to type next; nothing for any other run."""
    if lines := ending(folders, report=report):
        show(["", *lines, ""])
