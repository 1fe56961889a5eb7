"""Looks at `.unfreeze/` before it is used: in a folder that others can write to, links may lead elsewhere."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path


def check_state(state: Path, *, say: Callable[[str], object] = lambda _: None) -> None:
    """Raise OSError for a link within `state`, and say who else can change what is in it.

    `state` itself may be a link, to a larger disk. Within it nothing of ours is one, down to where a scratch folder or
    a lock begins: what is written or removed through such a link would be another's.
    """
    if not state.is_dir():
        return
    for link in _links(state, depth=2):
        raise OSError(f"{link} is a link, and Unfreeze makes none there: remove it (it leads to {link.readlink()})")
    found = state.stat()
    if found.st_uid not in (os.getuid(), 0):
        say(f"{state} belongs to another user (id {found.st_uid}), who can change what this run reads: is that meant?")
    elif found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        say(f"{state} can be written by everybody, who can change what this run reads: `chmod o-w {state}`")


def _links(folder: Path, *, depth: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif depth > 1 and entry.is_dir(follow_symlinks=False):
                yield from _links(Path(entry.path), depth=depth - 1)
