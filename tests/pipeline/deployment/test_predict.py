"""`unfreeze predict`, as a person types it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.deployment.output import Shown, open_format
from pipeline.deployment.predict import _print_all, main
from pipeline.evaluation.answers import Answer, answer
from pipeline.evaluation.prediction import load_predictor
from tests.conftest import PROJECT
from tests.pipeline.deployment.conftest import make_model_folder

COMMAND = [sys.executable, "-m", "pipeline.cli", "predict"]


def test_a_bad_file_is_a_line_and_the_rest_goes_on(
    model_folder: Path, photos: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(30))
    (tmp_path / "notes.txt").write_text("x")
    names = [str(tmp_path), str(photos[0].parent), f"{photos[0].parent}/[0-3].*", "gone.jpg", "*.nothing"]
    assert main([str(model_folder), *names, "--format", "csv"]) == 1
    printed = capfd.readouterr()
    rows = list(csv.DictReader(printed.out.splitlines()))
    predictor = load_predictor(model_folder)
    expected = [predictor.card.classes[i] for i in predictor.predict(photos).argmax(axis=1)]
    assert [row["file"] for row in rows if not row["error"]] == [str(photo) for photo in [*photos, *photos[:4]]]
    assert [row["class"] for row in rows if not row["error"]] == [*expected, *expected[:4]]
    assert {row["file"]: row["error"] for row in rows if row["error"]} == {
        f"{tmp_path}/broken.jpg": "not an image",
        f"{tmp_path}/notes.txt": "not an image but text",
        "gone.jpg": "no such file",
        "*.nothing": "no file matches",
    }
    assert printed.err == "error: 4 of 16 files cannot be read\n"


def test_good_files_end_with_status_0(
    model_folder: Path, photos: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    names = list(map(str, photos))
    assert main([str(model_folder), *names, "--format", "json", "--top-k", "2", "--tta", "--novelty"]) == 0
    printed = capfd.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["file"] for line in lines] == names
    expected = load_predictor(model_folder).predict(photos, tta=True).max(axis=1)
    assert [line["probability"] for line in lines] == pytest.approx(expected.tolist(), abs=2e-6)
    assert all(len(line["top"]) == 2 and 0 <= line["novelty"] <= 1 for line in lines)
    assert printed.err == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone"], "gone is not a model folder (there is no such folder)"),
        (["gone.onnx"], "gone.onnx: there is no such file; `unfreeze export` makes one"),
        (["MODEL", "--device", "cuda:99"], "--device cuda:99 is not usable here"),
        (["MODEL", "--coverage", "2"], "coverage=2 must lie between 0 and 1"),
        (["models:/photos@champion"], "mlflow.db does not exist: no run has been logged there yet"),
    ],
)
def test_what_cannot_be_done_is_told(
    model_folder: Path,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    name, *options = arguments
    assert main([name.replace("MODEL", str(model_folder)), str(photos[0]), *options]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert told in printed.err


def test_names_that_lead_nowhere_stand_between_the_others(
    model_folder: Path, photos: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["*.nothing", str(photos[0]), "*.neither", str(photos[1]), str(photos[2])]
    assert main([str(model_folder), *names, "--format", "csv"]) == 1
    rows = list(csv.DictReader(capfd.readouterr().out.splitlines()))
    assert [row["file"] for row in rows] == names
    assert [bool(row["error"]) for row in rows] == [True, False, True, False, False]


def test_views_of_several_sizes_come_whole_from_another_process(photos: list[Path], tmp_path: Path) -> None:
    predictor = load_predictor(make_model_folder(tmp_path / "scaled", mode="multi_scale"))
    found = [each.probs for each in answer(predictor, photos, tta=True, workers=1)]
    np.testing.assert_allclose(np.stack([p for p in found if p is not None]), predictor.predict(photos, tta=True))


@pytest.mark.slow
def test_a_reader_that_stops_early_ends_it_quietly(model_folder: Path, photos: list[Path]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [*COMMAND, str(model_folder), *map(str, photos * 30)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"file")
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, b"")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["table", "csv", "json"])
def test_a_name_does_not_write_to_the_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unread = Answer(Path("a\x1b[2J\x9b31m.jpg"), error="not an image")
    monkeypatch.setattr("sys.stdout", out := Terminal())
    assert _print_all(open_format(name, Shown(("a",)), names=[str(unread.file)]), iter([unread])) == 1
    assert not {"\x1b", "\x9b"} & {*out.getvalue()}
    assert "[2J" in out.getvalue()
