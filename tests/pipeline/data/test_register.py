"""The register: what it is asked for, it gives by split, label and verdict, in a fixed order."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.data.facts import Facts
from pipeline.data.found import UNLABELLED, FoundFile
from pipeline.data.register import Register

FILES = [
    ("b.png", "cat", "train", Facts(sha256="1")),
    ("a.png", "cat", "train", Facts(sha256="2", flags=("tiny",))),
    ("c.png", "dog", "train", Facts(sha256="1")),
    ("d.png", "dog", "valid", Facts(sha256="3")),
    ("e.png", "", UNLABELLED, Facts(sha256="4")),
    ("f.png", "dog", "test", Facts(problem="damaged")),
]


@pytest.fixture
def register() -> Iterator[Register]:
    with closing(Register()) as register:
        register.add_found(FoundFile(path, label, split) for path, label, split, _ in FILES)
        assert len(list(register.add_facts(facts for *_, facts in FILES))) == len(FILES)
        yield register


def test_samples_are_chosen_by_split_label_and_number(register: Register) -> None:
    def paths(**chosen: str | int) -> str:
        return "".join(s.path[0] for s in register.samples(**chosen))  # type: ignore[arg-type]

    assert paths() == "abcde"
    assert paths(split="train") == "abc"
    assert paths(split="train", label="cat", limit=1) == "a"
    assert paths(label="dog") == "cd"
    assert paths(label="") == paths(split=UNLABELLED) == "e"
    assert paths(limit=0) == ""


def test_the_ledger_is_in_the_order_of_the_source(register: Register) -> None:
    assert "".join(line.path[0] for line in register.ledger()) == "bacdef"
    assert [(line.path, line.reason) for line in register.ledger("rejected")] == [("f.png", "damaged")]
    assert len(list(register.ledger(limit=2))) == 2
    assert register.count_verdicts() == {"accepted": 4, "converted": 0, "flagged": 1, "rejected": 1, "ignored": 0}


def test_copies_and_distinct_images_are_numbers_of_files(register: Register) -> None:
    assert register.used_copies() == [(0, 2)]
    assert list(register.distinct_images()) == [0, 1, 3, 4]


def test_groups_are_counted_moved_and_dropped(register: Register) -> None:
    assert register.given_splits() == {"train", "valid", UNLABELLED}
    assert register.count_groups(["train", "valid"]) == {("cat", "train"): 2, ("dog", "train"): 1, ("dog", "valid"): 1}
    assert register.groups_of_labels(["dog"], ["train"]) == {"1": {"cat", "dog"}}
    register.move_groups([("2", "train", "valid")])
    register.keep_training_groups(lambda group: group != "1")
    assert [(s.path, s.split) for s in register.samples(split="valid")] == [("a.png", "valid"), ("d.png", "valid")]
    assert list(register.samples(split="train")) == []
    register.assign_splits(lambda _: "test")
    assert list(register.samples(split="test")) == []
