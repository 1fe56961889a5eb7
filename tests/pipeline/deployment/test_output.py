"""Answers as a table, as CSV and as JSON lines, read back by what reads such files."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.deployment.output import Shown, open_format
from pipeline.evaluation.answers import Answer

CLASSES = ("ants", "bees, wild", "猫")
SURE = Answer(Path("a.jpg"), np.array([0.1, 0.7, 0.2]), 0.25)
BAD = Answer(Path("dir/b, c.jpg"), error="not an image")
ODD = Answer(Path("new\nline\x1b[31m.jpg"), np.array([0.9, 0.06, 0.04]), 1.0)
LATIN = Answer(Path(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")), np.array([0.4, 0.3, 0.3]), 0.0)
FULL = Shown(CLASSES, top_k=2, highest_score=0.85, novelty=True)

Write = Callable[..., str]


@pytest.fixture
def write() -> Write:
    def all_of(name: str, shown: Shown, answers: Sequence[Answer] = (SURE, BAD, ODD, LATIN)) -> str:
        lines = open_format(name, shown, names=[str(a.file) for a in answers])
        return lines.header() + "".join(map(lines.line, answers))

    return all_of


def test_csv_has_a_row_per_file_and_a_column_for_what_was_asked(write: Write) -> None:
    first, bad, odd, _ = csv.DictReader(io.StringIO(write("csv", FULL)))
    assert first == {
        "file": "a.jpg",
        "class": "bees, wild",
        "probability": "0.700000",
        "class_2": "猫",
        "probability_2": "0.200000",
        "novelty": "0.250000",
        "set": "bees, wild | 猫",
        "error": "",
    }
    assert bad == dict.fromkeys(first, "") | {"file": "dir/b, c.jpg", "error": "not an image"}
    assert odd["file"] == "new\nline\x1b[31m.jpg"
    plain = list(csv.DictReader(io.StringIO(write("csv", Shown(CLASSES)))))
    assert list(plain[0]) == ["file", "class", "probability", "error"]


def test_names_are_no_formulas_in_a_spreadsheet(write: Write) -> None:
    shown = Shown(("=cmd", "-1", "@x"), top_k=2, highest_score=0.85)
    answers = [Answer(Path("=a.jpg"), np.array([0.7, 0.2, 0.1]), 0.25), Answer(Path("+b.jpg"), error="-no")]
    assert [*csv.reader(io.StringIO(write("csv", shown, answers)))][1:] == [
        ["'=a.jpg", "'=cmd", "0.700000", "-1", "0.200000", "'=cmd | -1", ""],
        ["'+b.jpg", "", "", "", "", "", "'-no"],
    ]


def test_json_is_an_object_per_line(write: Write) -> None:
    first, bad, odd, latin = map(json.loads, write("json", FULL).splitlines())
    assert first == {
        "file": "a.jpg",
        "class": "bees, wild",
        "probability": 0.7,
        "top": [{"class": "bees, wild", "probability": 0.7}, {"class": "猫", "probability": 0.2}],
        "novelty": 0.25,
        "set": ["bees, wild", "猫"],
        "error": None,
    }
    assert bad == {"file": "dir/b, c.jpg", "error": "not an image"}
    assert odd["file"] == "new\nline\x1b[31m.jpg"
    assert latin["file"] == "caf\udce9.jpg"
    assert "\x9b" not in write("json", FULL, [Answer(Path("a\x9b31m.jpg"), error="x")])
    assert json.loads(write("json", Shown(CLASSES)).splitlines()[0]) == {
        "file": "a.jpg",
        "class": "bees, wild",
        "probability": 0.7,
        "error": None,
    }


def test_a_table_is_aligned_and_writes_nothing_to_the_terminal_but_text(write: Write) -> None:
    header, first, bad, odd, _ = write("table", FULL).splitlines()
    assert first.split() == ["a.jpg", "bees,", "wild", "0.7000", "猫", "0.2000", "0.250", "bees,", "wild", "|", "猫"]
    assert header.index("class") == first.index("bees") == bad.index("error") == odd.index("ants")
    assert header.index("novelty") == first.index("0.250")
    assert header.index("could be") == first.rindex("bees")
    assert bad.endswith("error: not an image")
    assert odd.startswith("new\\nline\\x1b[31m.jpg ")


def test_more_classes_than_there_are_is_all_of_them(write: Write) -> None:
    for name in ("table", "csv", "json"):
        assert write(name, Shown(CLASSES, top_k=99)).count("\n") >= 4
    assert len(json.loads(write("json", Shown(CLASSES, top_k=99)).splitlines()[0])["top"]) == 3
