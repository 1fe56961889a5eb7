"""A file that hangs is named while it hangs; one that does not is not."""

import time
from pathlib import Path

import pytest

from pipeline.data import watch


def test_what_takes_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(watch, "LONG_S", 0.05)
    monkeypatch.setattr(watch, "say", lambda _, text: said.append(text))
    watch._watch_from_now_on.cache_clear()  # a thread of our own, as others sleep by the longer time
    assert watch.watched(lambda path: path.name, Path("quick.jpg")) == "quick.jpg"

    def hang(path: Path) -> str:
        limit = time.monotonic() + 10
        while not said and time.monotonic() < limit:
            time.sleep(0.01)
        return path.name

    assert watch.watched(hang, Path("slow.jpg")) == "slow.jpg"
    assert said[0].startswith("'slow.jpg' is being read for")
    assert not watch._under_way
