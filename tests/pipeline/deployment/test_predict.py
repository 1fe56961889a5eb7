"""`unfreeze predict`, as a person types it, on a model that the recipe has trained."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.deployment.predict import main
from tests.conftest import PROJECT, Run

COMMAND = [sys.executable, "-m", "pipeline.cli", "predict"]


@pytest.fixture
def model(recipe: Run) -> str:
    return str(recipe.folder("tta_evaluate") / "model")


def test_a_bad_file_is_a_line_and_the_rest_goes_on(
    model: str, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(30))
    (tmp_path / "notes.txt").write_text("x")
    names = [str(pictures / "dots"), str(tmp_path), f"{pictures}/bars/0*.png", "gone.jpg", "*.nothing"]
    assert main([model, *names, "--format", "csv"]) == 1
    printed = capfd.readouterr()
    rows = {row["file"]: row for row in csv.DictReader(printed.out.splitlines())}
    dots = [row for file, row in rows.items() if "dots" in file]
    assert [row["class"] for row in dots] == ["dots"] * 24
    assert {row["class"] for file, row in rows.items() if "bars" in file} == {"bars"}
    errors = {file: row["error"] for file, row in rows.items() if row["error"]}
    assert errors == {
        f"{tmp_path}/broken.jpg": "not an image",
        f"{tmp_path}/notes.txt": "not an image but text",
        "gone.jpg": "no such file",
        "*.nothing": "no file matches",
    }
    assert printed.err == "error: 4 of 33 files cannot be read\n"


def test_good_files_end_with_status_0(model: str, pictures: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([model, str(pictures / "plain"), "--format", "json", "--top-k", "2", "--tta"]) == 0
    printed = capfd.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert len(lines) == 24
    assert all(line["class"] == "plain" and len(line["top"]) == 2 for line in lines)
    assert printed.err == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone"], "gone is not a model folder (there is no such folder)"),
        (["gone.onnx"], "gone.onnx: there is no such file; `unfreeze export` makes one"),
        (["MODEL", "--device", "cuda:99"], "--device cuda:99 is not usable here"),
        (["MODEL", "--coverage", "2"], "coverage=2 must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_done_is_told(
    model: str, pictures: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    name, *options = arguments
    assert main([name.replace("MODEL", model), str(pictures / "bars"), *options]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert told in printed.err


def test_a_reader_that_stops_early_ends_it_quietly(model: str, pictures: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [*COMMAND, model, str(pictures), str(pictures), str(pictures)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"file")
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, b"")
