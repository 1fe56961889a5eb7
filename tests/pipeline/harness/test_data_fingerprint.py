"""The fingerprint of the images is of their contents, and reads a file once."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.sources import source_files
from pipeline.harness import data_fingerprint
from pipeline.harness.data_fingerprint import fingerprint_source
from pipeline.settings import DataSource, read_settings
from pipeline.stopping import Stopped
from pipeline.workspace import Bar
from tests.conftest import Compose

LONG_AGO_S = 1_600_000_000


@pytest.fixture
def data(pictures: Path, tmp_path: Path, compose_conf: Compose) -> DataSource:
    """A folder of 72 pictures that were written long ago."""
    photos = shutil.copytree(pictures, tmp_path / "photos")
    make_old(photos)
    return read_settings(compose_conf("data=folder", f"data.root={photos}"), source="conf").data


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def was_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read, by name."""
    names: list[str] = []
    read = data_fingerprint._read

    def noted(path: str) -> tuple[bytes, bool]:
        names.append(Path(path).name)
        return read(path)

    monkeypatch.setattr(data_fingerprint, "_read", noted)
    return names


def make_old(folder: Path, time_s: int = LONG_AGO_S) -> None:
    for file in folder.rglob("*.*g"):
        os.utime(file, (time_s, time_s))


def root_of(data: DataSource) -> Path:
    return Path(data.root or "")


def test_it_is_of_names_and_contents_and_nothing_else(data: DataSource, kept: Path) -> None:
    expected = hashlib.sha256()
    for name, path in sorted(source_files(data)):
        expected.update(name.encode() + b"\0" + hashlib.sha256(Path(path).read_bytes()).digest())
    found = fingerprint_source(data, kept=kept)
    assert (found["files"], found["fingerprint"]) == (72, expected.hexdigest())


def test_a_copy_elsewhere_at_other_times_is_the_same(data: DataSource, tmp_path: Path, kept: Path) -> None:
    copy = shutil.copytree(root_of(data), tmp_path / "copy", copy_function=shutil.copy)
    make_old(copy, LONG_AGO_S + 1)
    here, there = fingerprint_source(data, kept=kept), fingerprint_source(replace(data, root=str(copy)), kept=kept)
    assert here | {"root": None} == there | {"root": None}
    (copy / "bars" / "00.jpg").rename(copy / "bars" / "000.jpg")
    assert fingerprint_source(replace(data, root=str(copy)), kept=kept)["fingerprint"] != here["fingerprint"]


def test_a_file_is_read_once_and_again_when_its_time_changes(data: DataSource, kept: Path, was_read: list[str]) -> None:
    first = fingerprint_source(data, kept=kept)
    assert len(was_read) == 72
    was_read.clear()
    assert fingerprint_source(data, kept=kept) == first
    assert was_read == []
    os.utime(root_of(data) / "bars" / "03.png", (LONG_AGO_S, LONG_AGO_S + 5))
    assert fingerprint_source(data, kept=kept) == first
    assert was_read == ["03.png"]
    (root_of(data) / "dots" / "01.png").unlink()
    assert fingerprint_source(data, kept=kept)["files"] == 71
    assert was_read == ["03.png"]


def test_the_usual_case_opens_one_small_file(data: DataSource, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint_source(data, kept=kept)
    monkeypatch.setattr(data_fingerprint, "read_sealed", lambda _: pytest.fail("the table was read"))
    assert fingerprint_source(data, kept=kept) == first


def test_what_was_read_is_kept_when_the_run_is_stopped(data: DataSource, kept: Path, was_read: list[str]) -> None:
    @contextmanager
    def stopping(total: int) -> Iterator[Bar]:
        assert total == 72

        class Stops(Bar):
            done = 0

            def advance(self, count: int = 1, *, note: str = "") -> None:
                del note
                self.done += count
                if self.done == 40:
                    raise Stopped(15)

        yield Stops()

    with pytest.raises(Stopped):
        fingerprint_source(data, kept=kept, progress=stopping)
    was_read.clear()
    assert fingerprint_source(data, kept=kept) == fingerprint_source(data)
    assert len(was_read) == 32 + 72


def test_a_damaged_table_is_made_again(
    data: DataSource, kept: Path, was_read: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    first = fingerprint_source(data, kept=kept)
    [table] = kept.glob("*.table")
    content = bytearray(table.read_bytes())
    content[100] ^= 1
    table.write_bytes(content)
    [summary] = kept.glob("*.json")
    summary.unlink()
    was_read.clear()
    assert fingerprint_source(data, kept=kept) == first
    assert len(was_read) == 72
    assert "is damaged" in capfd.readouterr().err


def test_a_file_that_was_just_written_is_read_again(data: DataSource, kept: Path) -> None:
    """Two writes within one tick of the disk's clock leave the same size and time."""
    file, now = root_of(data) / "bars" / "03.png", time.time_ns()
    found = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(now, now))
        found.append(fingerprint_source(data, kept=kept)["fingerprint"])
    assert found[0] != found[1]


def test_what_is_no_file_has_a_fingerprint_too(data: DataSource, tmp_path: Path, kept: Path) -> None:
    """A pipe is not waited for, and the time of a folder is nothing that a copy has."""
    os.mkfifo(root_of(data) / "bars" / "pipe.png")
    (root_of(data) / "bars" / "away.png").symlink_to(tmp_path / "nowhere")
    inner = root_of(data) / "bars" / "folder.png"
    inner.symlink_to(tmp_path)
    first: dict[str, Any] = fingerprint_source(data, kept=kept)
    os.utime(tmp_path, (0, 0))
    assert fingerprint_source(data, kept=kept) == first
    (tmp_path / "nowhere").write_bytes(b"here now")
    assert fingerprint_source(data, kept=kept)["fingerprint"] != first["fingerprint"]
