"""The image files that a person names: files, folders, patterns, and a list on standard input."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO

from pipeline.data.folder import find_below

STDIN = "-"


@dataclass(frozen=True)
class Named:
    """A file to predict, or a name that leads to none."""

    path: Path
    error: str = ""


def find_inputs(names: Iterable[str], *, stdin: BinaryIO) -> list[Named]:
    """The files that `names` stand for, in order.

    A folder stands for all files below it, except those that ingest ignores too (hidden ones, `Thumbs.db`, ...). A name
    with `*`, `?` or `[` that is no file is a pattern; `**` stands for any folders. `-` reads names from `stdin`, one a
    line, or separated by zero bytes as `find -print0` writes them. A name that leads nowhere is given with an error.
    """
    return [named for name in names for named in (_read_names(stdin) if name == STDIN else _find(name))]


def _find(name: str) -> Iterator[Named]:
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _below(path)
    elif has_magic(name) and not os.path.lexists(path):
        found = sorted(glob(str(path), recursive=True))  # noqa: PTH207 (pathlib needs a folder to start from)
        if not found:
            yield Named(Path(name), "no file matches")
        for each in map(Path, found):
            if not each.is_dir():
                yield Named(each)
            elif "**" not in name:  # which gives the files inside too
                yield from _below(each)
    else:
        yield Named(path)


def _below(folder: Path) -> Iterator[Named]:
    found = [f for f in find_below(folder) if not f.ignored]
    if not found:
        yield Named(folder, "a folder without files")
    for each in found:
        yield Named(folder / each.path, "" if each.problem.startswith("its name") else each.problem)


def _read_names(stdin: BinaryIO) -> Iterator[Named]:
    content = stdin.read()
    names: Sequence[bytes] = content.split(b"\0") if b"\0" in content else content.splitlines()
    for name in filter(None, names):
        yield from _find(os.fsdecode(name))
