"""Reading many files: in order, the same with any number of workers, and only what has changed."""

import os
import random
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.data import reader
from pipeline.data.facts import Facts, look_at
from pipeline.data.reader import FactsCache, read_facts
from pipeline.files import file_state
from pipeline.stopping import Stopped
from pipeline.workspace import Bar


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictures / "bars", tmp_path / "bars"))


def read(folder: Path, *, workers: int = 1, cache: FactsCache | None = None) -> list[Facts]:
    files = sorted(f.name for f in folder.iterdir())
    return list(read_facts(folder, files, background="white", workers=workers, bar=Bar(), cache=cache))


def test_threads_and_processes_find_the_same_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [look_at(f, background="white") for f in sorted(folder.iterdir())]
    assert read(folder, workers=3) == alone
    monkeypatch.setattr(reader, "_FEW", 0)
    monkeypatch.setattr(reader, "_BLOCK", 10)
    assert read(folder, workers=2) == alone


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that were opened."""
    seen: list[str] = []

    def spy(path: Path, **arguments: Any) -> Facts:
        seen.append(path.name)
        return look_at(path, **arguments)

    monkeypatch.setattr(reader, "look_at", spy)
    return seen


def test_only_what_changed_is_read_again(folder: Path, tmp_path: Path, opened: list[str]) -> None:
    cache = FactsCache(tmp_path / "facts.sqlite", made_by="now")
    first = read(folder, cache=cache)
    assert len(opened) == 24
    assert read(folder, cache=cache) == first
    assert len(opened) == 24

    changed, kept = folder / "03.png", (folder / "03.png").stat()
    content = bytearray((folder / "05.png").read_bytes()[: kept.st_size].ljust(kept.st_size, b"\0"))
    changed.write_bytes(content)
    os.utime(changed, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # same size, same time: only ctime differs
    (folder / "new.png").write_bytes((folder / "01.png").read_bytes())
    again = read(folder, cache=cache)
    assert opened[24:] == ["03.png", "new.png"]
    assert again == [look_at(f, background="white") for f in sorted(folder.iterdir())]
    cache.close()


def test_what_was_read_before_a_stop_is_kept(folder: Path, tmp_path: Path) -> None:
    class Stopping(Bar):
        seen = 0

        def advance(self, count: int = 1, *, note: str = "") -> None:
            del count
            self.seen += bool(note)
            if self.seen == 10:
                raise Stopped(signal.SIGTERM)

    files = sorted(f.name for f in folder.iterdir())
    with closing(FactsCache(tmp_path / "facts.sqlite", made_by="now")) as cache:
        with pytest.raises(Stopped):
            list(read_facts(folder, files, background="white", workers=1, bar=Stopping(), cache=cache))
        named = [str(folder / file) for file in files]
        kept = cache.get([(name, file_state(name, of_this_copy=True)) for name in named])
    assert [facts is not None for facts in kept] == [True] * 10 + [False] * 14


def test_facts_made_by_something_else_are_read_again(folder: Path, tmp_path: Path, opened: list[str]) -> None:
    file = tmp_path / "facts.sqlite"
    for made_by in ("white", "black"):
        read(folder, cache=FactsCache(file, made_by=made_by))
    assert len(opened) == 48
    read(folder, cache=FactsCache(file, made_by="black, with another decoder"))
    assert len(opened) == 72
    read(folder, cache=FactsCache(file, made_by="black, with another decoder"))
    assert len(opened) == 72


@pytest.mark.parametrize("content", [b"no database" * 100, None], ids=["damaged", "another version"])
def test_a_cache_that_cannot_be_used_is_replaced(folder: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "facts.sqlite"
    if content is None:
        sqlite3.connect(file).execute("CREATE TABLE facts (path BLOB PRIMARY KEY, facts TEXT)").connection.close()
    else:
        file.write_bytes(content)
    cache = FactsCache(file, made_by="now")
    assert read(folder, cache=cache) == read(folder, cache=cache)
    cache.close()


def test_damage_anywhere_in_the_cache_changes_no_fact(folder: Path, tmp_path: Path) -> None:
    file, expected = tmp_path / "facts.sqlite", read(folder)
    with closing(FactsCache(file, made_by="now")) as cache:
        read(folder, cache=cache)
    whole = file.read_bytes()
    generator = random.Random(0)
    for _ in range(50):
        damaged = bytearray(whole)
        if generator.random() < 0.2:
            del damaged[generator.randrange(len(whole)) :]
        else:
            for _ in range(generator.choice((1, 1, 20))):
                damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        with closing(FactsCache(file, made_by="now")) as cache:
            assert read(folder, cache=cache) == expected


def test_a_passing_problem_is_not_cached(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FactsCache(tmp_path / "facts.sqlite", made_by="now")
    monkeypatch.setattr(reader, "look_at", lambda *_, **__: Facts(problem="no permission to read it"))
    assert all(f.problem for f in read(folder, cache=cache))
    monkeypatch.undo()
    assert not any(f.problem for f in read(folder, cache=cache))
