"""The journal, and the table made from it."""

import csv
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.journal import Journal, read_points, write_history


def test_points_of_one_step_share_a_row(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.points(0, train_loss=1.0)
    journal.points(1, train_loss=0.5)
    journal.points(1, valid_loss=0.75)
    journal.close()
    write_history(journal.path, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"step": "0", "train_loss": "1.0", "valid_loss": ""},
        {"step": "1", "train_loss": "0.5", "valid_loss": "0.75"},
    ]


def test_a_killed_run_goes_on_from_the_mark_of_what_was_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.points(0, x=0.0)
    mark = journal.mark()
    journal.points(1, x=1.0)
    journal.close()

    resumed = Journal(journal.path)
    assert resumed.resume(mark)
    resumed.points(1, x=2.0)
    resumed.end()
    resumed.close()
    assert read_points(journal.path) == {0: {"x": 0.0}, 1: {"x": 2.0}}


def test_without_a_mark_it_begins_again(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        journal = Journal(tmp_path / "journal.jsonl")
        journal.points(0, x=value)
        journal.close()
    assert read_points(journal.path) == {0: {"x": 2.0}}


def test_one_that_stops_before_it_goes_on_removes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.points(0, x=0.0)
    mark = journal.mark()
    journal.close()
    Journal(journal.path).close()
    with closing(Journal(journal.path)) as resumed:
        assert resumed.resume(mark)


@pytest.mark.parametrize("damage", [b"", b'{"step": 0, "values": {"x": 9.0}}\n', b"{"])
def test_a_damaged_one_does_not_go_on(tmp_path: Path, damage: bytes) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.points(0, x=0.0)
    mark = journal.mark()
    journal.close()
    journal.path.write_bytes(damage)
    with closing(Journal(journal.path)) as resumed:
        assert not resumed.resume(mark)
