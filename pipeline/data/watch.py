"""Names a file that takes very long to read: a network drive that is away, or a decoder that does not come back."""

import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from pipeline.console import say

LONG_S = 30.0
_T = TypeVar("_T")
_under_way: dict[int, tuple[Path, float]] = {}
"""By thread: what it reads, and since when."""


def watched(look: Callable[[Path], _T], path: Path) -> _T:
    """`look(path)`; the file is named, every `LONG_S`, while that takes longer. One thread watches all others."""
    _watch_from_now_on()
    _under_way[threading.get_ident()] = (path, time.monotonic())
    try:
        return look(path)
    finally:
        del _under_way[threading.get_ident()]


@cache
def _watch_from_now_on() -> None:
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while True:
        time.sleep(LONG_S)
        for path, began in list(_under_way.values()):
            if (seconds := time.monotonic() - began) >= LONG_S:
                say("ingest", f"{str(path)!r} is being read for {seconds:.0f} s: if it hangs, stop and remove it")
