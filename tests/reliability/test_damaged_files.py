"""The short form of `fuzz_files`: a few hundred damaged images and archives of every kind."""

import os
from pathlib import Path

import pytest

from pipeline.data.facts import Facts
from tests.reliability import mutants
from tests.reliability.fuzz_files import fuzz, walk_tar


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
