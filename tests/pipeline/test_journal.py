"""The journal, and the table made from it."""

import csv
from pathlib import Path

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


def test_rewinding_removes_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.points(0, x=0.0)
    length = journal.tell()
    journal.points(1, x=1.0)
    journal.close()
    resumed = Journal(tmp_path / "journal.jsonl")
    resumed.rewind(length)
    resumed.points(1, x=2.0)
    resumed.close()
    assert read_points(resumed.path) == {0: {"x": 0.0}, 1: {"x": 2.0}}
