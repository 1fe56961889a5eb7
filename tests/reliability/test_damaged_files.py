"""The short form of `fuzz_files`: a few hundred damaged images and archives of every kind; and kills in between."""

import itertools
import os
import signal
from pathlib import Path

import pytest

from pipeline import files
from pipeline.data.archive import unpack
from pipeline.data.facts import Facts
from tests.reliability import mutants
from tests.reliability.fuzz_files import LIMITS, fuzz, walk_tar


def test_damaged_files_are_refused_or_whole(tmp_path: Path) -> None:
    tally = fuzz(400, seed=1, folder=tmp_path)
    assert {kind for kind, _ in tally.ends} == {*mutants.images(), *mutants.archives()}
    assert {end for _, end in tally.ends} >= {"read", "rejected", "refused", "unpacked"}


def test_a_library_that_prints_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_and_print(*_: object, **__: object) -> Facts:
        os.write(2, b"libfoo: warning\n")
        return Facts(problem="damaged")

    monkeypatch.setattr("tests.reliability.fuzz_files.look_at", look_and_print)
    with pytest.raises(AssertionError, match="libfoo"):
        fuzz(1, seed=0, folder=tmp_path)


def test_an_archive_that_loses_a_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(file: Path, into: Path, _: object) -> None:
        del file
        into.mkdir()

    monkeypatch.setattr("tests.reliability.fuzz_files.unpack", lose)
    with pytest.raises(AssertionError):
        fuzz(2, seed=0, folder=tmp_path)


def test_the_walk_through_a_tar_finds_what_is_in_it() -> None:
    for name in ("ustar.tar", "gnu.tar", "pax.tar"):
        assert walk_tar(mutants.archives()[name]) == mutants.contents()


@pytest.mark.parametrize("name", ["deflated.zip", "pax.tar.gz"])
def test_a_kill_while_an_archive_is_unpacked_leaves_no_folder_that_looks_done(tmp_path: Path, name: str) -> None:
    file, into = tmp_path / name, tmp_path / "out" / "images"
    file.write_bytes(mutants.archives()[name])
    kill_at, killed = 0, True
    while killed:
        assert not into.exists()
        kill_at += 1
        killed = _unpack_in_a_process(file, into, kill_at)
    assert kill_at > len(mutants.contents())
    assert {p.relative_to(into).as_posix() for p in into.rglob("*") if p.is_file()} == {*mutants.contents()}


def _unpack_in_a_process(file: Path, into: Path, kill_at: int) -> bool:
    """Unpack in a process that dies before its k-th step on the disk; returns whether it did."""
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL)
        return status != 0
    steps = itertools.count(1)

    def die(*_: object) -> None:
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    files.before_step = die
    failed = 1
    try:
        unpack(file, into, LIMITS)
        failed = 0
    finally:
        os._exit(failed)
