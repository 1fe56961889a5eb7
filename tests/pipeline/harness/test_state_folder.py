"""Links that somebody planted in a shared state folder lead nowhere."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.files import remove_folder, write_text
from pipeline.harness.state_folder import check_state


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that is none of ours."""
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / "thesis.txt"
    file.write_text("years of work")
    return file


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / ".unfreeze"
    (folder / "locks").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("place", ["scratch", "locks/folder-1.lock", "scratch/full_train-1", "pending"])
def test_a_planted_link_is_refused_by_name(place: str, state: Path, victim: Path) -> None:
    (state / place).parent.mkdir(exist_ok=True)
    (state / place).symlink_to(victim.parent)
    with pytest.raises(OSError, match=f"{place} is a link"):
        check_state(state)


def test_a_state_folder_on_another_disk_is_accepted(state: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(state)
    check_state(tmp_path / "linked")
    check_state(tmp_path / "not there yet")


def test_a_folder_of_everybody_is_told(state: Path) -> None:
    said: list[str] = []
    check_state(state, say=said.append)
    assert said == []
    state.chmod(0o777)
    check_state(state, say=said.append)
    assert "can be written by everybody" in said[0]


def test_nothing_is_written_or_removed_through_a_link(state: Path, victim: Path) -> None:
    lock, note, draft = state / "locks" / "x.lock", state / "note.json", state / f".other.json.{os.getpid()}"
    for link in (lock, note, draft):
        link.symlink_to(victim)
    with pytest.raises(OSError):  # noqa: PT011 (the system's own)
        FileLock(lock).acquire(timeout=0)
    write_text(note, "ours")
    write_text(state / "other.json", "ours")
    (state / "scratch").symlink_to(victim.parent)
    remove_folder(state / "scratch")
    assert victim.read_text() == "years of work"
    assert note.read_text() == "ours"
    assert not note.is_symlink()
