"""What differs between two runs is found, whatever kind it is of."""

import re
from pathlib import Path

import pytest
from PIL import Image

from pipeline.comparison.commands import diff
from pipeline.comparison.difference import compare_images, difference
from pipeline.comparison.page import difference_lines, write_difference
from pipeline.comparison.paired import Answer, compare_answers
from pipeline.comparison.runs import read_run
from pipeline.data.manifest import Manifest, Samples
from pipeline.files import write_json
from tests.pipeline.comparison.conftest import CLASSES, sample, write_job


def test_settings_rates_scores_and_answers_of_two_jobs(checkout: Path) -> None:
    a = write_job(checkout, "a", settings={"full_train.lr": 0.1}, test_wrong=[0, 1, 2], losses=[0.5] * 40)
    b = write_job(checkout, "b", settings={"full_train.lr": 0.2}, test_wrong=[2, 3], losses=[0.4] * 40)
    found = difference(read_run(a), read_run(b))
    assert found.settings == {"full_train.lr": (0.1, 0.2)}
    assert found.data is not None
    assert found.data.is_empty
    assert found.code is None
    assert [(c.path, c.kind) for c in found.answers] == [
        ("test/3.png", "worse"),
        ("test/0.png", "better"),
        ("test/1.png", "better"),
    ]
    test, valid = found.scores["test"], found.scores["valid"]
    assert (test.only_first, test.only_second, test.num_images) == (1, 2, 40)
    assert test.accuracy == pytest.approx(1 / 40)
    assert test.accuracy_p == 1.0  # of the three images that one of them alone gets right, one against two
    assert valid.loss == pytest.approx(-0.1)
    lines = difference_lines(found)
    assert max(map(len, lines[2:])) <= 80  # the first two are the folders
    text = "\n".join(lines)
    assert "full_train.lr: 0.1 -> 0.2" in text
    assert "Right before, wrong now: 1 test image: test/3.png" in text


def test_images_added_removed_relabelled_moved_and_edited() -> None:
    old = [sample(f"{i}.png", i, "train") for i in range(5)]
    new = [old[0], sample("1.png", 1, "train", label="ant"), sample("2.png", 2, "test"), sample("3.png", 9, "train")]
    new.append(sample("new.png", 7, "train"))
    first, second = (Manifest(Samples.of(samples), tuple(CLASSES), Path()) for samples in (old, new))
    found = compare_images(first, second)
    assert (found.added, found.removed, found.edited) == (["new.png"], ["4.png"], ["3.png"])
    assert found.relabelled == {"1.png": ("bee", "ant")}
    assert found.moved == {"2.png": ("train", "test")}
    assert compare_images(first, first).is_empty


def test_only_images_with_the_same_label_are_compared() -> None:
    first = {"a": Answer("ant", "ant", 0.1), "b": Answer("bee", "ant", 2.0), "c": Answer("bee", "bee", 0.1)}
    second = {"a": Answer("ant", "bee", 1.1), "b": Answer("ant", "ant", 0.1), "d": Answer("bee", "bee", 0.1)}
    change = compare_answers(first, second)
    assert change is not None
    assert (change.num_images, change.only_first) == (1, 1)
    assert change.loss == pytest.approx(1.0)
    assert compare_answers(first, {}) is None


def test_the_page_shows_the_images_whose_answer_changed(checkout: Path, tmp_path: Path) -> None:
    a, b = write_job(checkout, "a", test_wrong=[0]), write_job(checkout, "b", test_wrong=[1])
    (checkout / "artifacts" / "ingest" / "test").mkdir()
    Image.new("RGB", (8, 8), "red").save(checkout / "artifacts" / "ingest" / "test" / "0.png")
    page = write_difference(tmp_path / "out", difference(read_run(a), read_run(b)))
    text = page.read_text(encoding="utf-8")
    assert len(re.findall("data:image/webp", text)) == 1
    assert text.count("no image") == 1  # of the other one nothing is left
    assert "Right before, wrong now" in text
    assert "Wrong before, right now" in text


def test_code_is_compared_where_it_is_recorded(checkout: Path) -> None:
    jobs = [write_job(checkout, name) for name in "ab"]
    for job, meaning in zip(jobs, ("1", "2"), strict=True):
        (job / "config" / "code").mkdir(parents=True)
        files = {"pipeline/learning/loop.py": meaning, "pipeline/files.py": "same"}
        write_json(job / "config" / "code" / "full_train.json", {"format": 1, "files": files})
    assert difference(*map(read_run, jobs)).code == ["pipeline/learning/loop.py"]


def test_a_name_that_is_no_folder_is_fetched_as_a_revision(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, fetched = write_job(checkout, "a", test_wrong=[0]), []

    def fetch(revision: str, target: Path) -> None:
        fetched.append(revision)
        target.parent.mkdir(exist_ok=True)
        job.rename(target)

    other = write_job(checkout, "b", test_wrong=[1])
    assert diff(["typal-half", str(other), "--out", str(tmp_path / "out")], fetch=fetch, prog="unfreeze diff") == 0
    assert fetched == ["typal-half"]
    assert "A  typal-half" in capsys.readouterr().out
