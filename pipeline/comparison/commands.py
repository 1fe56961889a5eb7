"""`unfreeze compare` and `unfreeze diff`: what a person types to compare finished runs."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.comparison.difference import difference
from pipeline.comparison.files import write_summary
from pipeline.comparison.page import difference_lines, write_difference
from pipeline.comparison.runs import Run, expand, read_run
from pipeline.comparison.table import Row, summarise
from pipeline.comparison.texts import terminal_lines
from pipeline.printable import printable

Fetch = Callable[[str, Path], None]
"""Copies a run out of git and DVC's cache, from a revision, into a folder."""

HERE = Path()


def compare(argv: Sequence[str], *, command: Callable[[Row], str], prog: str) -> int:
    """Print a table of runs, the best first; returns the exit status. `command` says how to use a run's settings."""
    parser = argparse.ArgumentParser(prog=prog, description="Compare finished runs in a table, the best first.")
    parser.add_argument(
        "folders", nargs="+", type=Path, help="a sweep's folder, jobs' folders below runs/, artifacts, or checkouts"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write summary.md, summary.csv and summary.png")
    arguments = parser.parse_args(argv)
    runs = [read_run(folder) for folder in expand(arguments.folders)]
    summary = summarise(runs)
    if not summary.rows:
        raise ValueError("none of these runs trained anything, so there is nothing to compare")
    use = command(summary.rows[0]) if summary.differing else None
    print(printable("\n".join(terminal_lines(summary, use_winner=use))))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        files = write_summary(arguments.out, summary, title=f"{len(summary.rows)} runs", use_winner=use)
        print(printable(f"\nWritten: {', '.join(map(str, files))}"))
    return 0


def diff(argv: Sequence[str], *, fetch: Fetch, prog: str) -> int:
    """Print what differs between two runs, and write a page with pictures; returns the exit status."""
    parser = argparse.ArgumentParser(prog=prog, description="Say what differs between two runs, and which answers.")
    parser.add_argument("first", metavar="A", help="a run's folder, a commit, or an experiment of `dvc exp show`")
    parser.add_argument("second", metavar="B", help="the other; the working copy is `.`")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=Path("runs/diff"), help="default: %(default)s")
    arguments = parser.parse_args(argv)
    with TemporaryDirectory() as fetched:
        first = _find(arguments.first, Path(fetched) / "a", fetch)
        found = difference(first, _find(arguments.second, Path(fetched) / "b", fetch))
        print(printable("\n".join(difference_lines(found))))
        page = write_difference(arguments.out, found)
    print(printable(f"\nWith pictures: {page}"))
    return 0


def _find(name: str, target: Path, fetch: Fetch) -> Run:
    """Read the run in a folder of this name, or at this revision of git."""
    if Path(name).is_dir():
        return read_run(Path(name))
    fetch(name, target)
    run = read_run(target, name=name)
    return Run(name, run.folder, run.settings, run.stages, HERE.resolve() / ".unfreeze")


def main(argv: Sequence[str], run: Callable[[Sequence[str]], int], *, name: str) -> int:
    """Run one of the commands; an error that the user can fix is printed in one line."""
    try:
        return run(argv)
    except (ValueError, OSError) as error:
        print(printable(f"{name}: error: {error}"), file=sys.stderr)
        return 1
