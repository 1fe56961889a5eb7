"""A sweep ends with a table, also where jobs failed, and what it prints can be pasted."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from pipeline.comparison.runs import read_run
from pipeline.comparison.table import summarise
from pipeline.files import read_json, write_json
from pipeline.harness.compose import run_app
from pipeline.harness.job_record import job_record
from pipeline.harness.sweep_end import end_sweep, failed_job, use_job, use_row
from pipeline.harness.typed import read_typed
from pipeline.report import style
from tests.conftest import PROJECT
from tests.pipeline.comparison.conftest import checkout, write_job

__all__ = ["checkout"]
CONF = PROJECT / "conf"


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "_DPI", 40)


def _pasted(command: str) -> list[str]:
    """The overrides that a shell and then Hydra make of a printed command."""
    _, *words = shlex.split(command.replace("dvc exp run", "dvc").replace("python -m ", "python "))
    overrides = [word for word in words if word not in ("-S", "stages.full_train")]
    read_typed(overrides)
    return overrides


def _record(program: str, *overrides: str, status: str = "done", error: str | None = None) -> dict[str, Any]:
    return {"program": program, "overrides": [*overrides], "status": status, "error": error}


def test_the_table_is_printed_and_written_and_names_the_best(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, loss in enumerate((0.6, 0.4)):
        job = write_job(checkout, str(i), settings={"full_train.lr": 0.1 + i}, losses=[loss] * 40)
        write_json(job / "job.json", _record("stages.full_train", f"full_train.lr={0.1 + i}"))
    failed = checkout / "runs" / "sweep" / "2"
    failed.mkdir()
    write_json(failed / "job.json", _record("stages.full_train", "full_train.lr=9", status="failed", error="too high"))
    ended = end_sweep(checkout / "runs" / "sweep")
    assert ended.best == checkout / "runs" / "sweep" / "1"
    assert [file.name for file in ended.files] == ["summary.md", "summary.csv", "summary.png"]
    assert all(file.exists() for file in ended.files)
    said = capsys.readouterr().err
    assert "Sweep of 3 jobs, 1 not finished" in said
    assert "  dvc exp run -S full_train.lr=1.1" in said
    assert "Job 2 failed: too high" in said
    assert "  python -m stages.full_train full_train.lr=9" in said


def test_a_sweep_in_which_every_job_failed_has_no_picture_and_no_winner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0").mkdir()
    write_json(tmp_path / "0" / "job.json", _record("stages.full_train", status="started"))
    ended = end_sweep(tmp_path)
    assert (ended.best, [file.suffix for file in ended.files]) == (None, [".md", ".csv"])
    assert "Job 0 was stopped before its end." in capsys.readouterr().err


@pytest.mark.parametrize(
    "override",
    [
        "full_train.lr=0.1",
        "unfreeze.lrs=[1e-5,1e-4]",
        "data.root='my photos (1)'",
        'data.root="don\'t"',
        "model=imagenet",
    ],
)
def test_printed_commands_come_back_as_they_were(override: str) -> None:
    record = _record("stages.full_train", override, "hydra.sweep.dir=x")
    assert _pasted(use_job(record)) == [override]
    assert _pasted(failed_job(Path("3"), _record("stages.full_train", override, status="failed")).command) == [override]


@pytest.mark.parametrize("value", [0.1, None, True, [1, 2], "my photos (1)", "don't", "2024"])
def test_settings_of_a_row_come_back_as_they_were(value: object, checkout: Path) -> None:
    jobs = [write_job(checkout, str(i), settings={"data.root": v}) for i, v in enumerate((value, "other"))]
    rows = summarise([read_run(job) for job in jobs]).rows
    row = next(row for row in rows if row.run.folder == jobs[0])
    (override,) = _pasted(use_row(row))
    assert override.startswith("data.root=")


def test_a_job_says_how_it_ended_and_a_killed_one_that_it_was_started(tmp_path: Path) -> None:
    def run(name: str, error: BaseException | None) -> str:
        try:
            with job_record(tmp_path / name, program="stages.tail", overrides=["seed=1"]):
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        return str(read_json(tmp_path / name / "job.json")["status"])

    assert [run("0", None), run("1", ValueError("bad")), run("2", KeyboardInterrupt())] == ["done", "failed", "started"]
    assert read_json(tmp_path / "1" / "job.json")["error"] == "bad"


def test_the_end_of_a_sweep_is_reached_though_a_job_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Path] = []

    def job(params: dict[str, Any], folder: Path, overrides: list[str]) -> float:
        del folder, overrides
        if params["seed"] == 1:
            raise ValueError("seed 1 is not liked")
        return 0.5

    def end(folder: Path) -> bool:
        ended.append(folder)
        return False

    monkeypatch.setattr("sys.argv", ["app", "-m", "seed=0,1,2", f"hydra.sweep.dir={tmp_path}"])
    assert not run_app(job, name="app", program="stages.app", conf=CONF, end_sweep=end)
    assert ended == [tmp_path]
    records = [read_json(tmp_path / str(i) / "job.json") for i in range(3)]
    assert [r["status"] for r in records] == ["done", "failed", "done"]
    assert records[1]["overrides"] == ["seed=1"]


def test_one_job_is_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: Path) -> bool:
        raise AssertionError("this is no sweep")

    monkeypatch.setattr("sys.argv", ["app", "seed=7", f"hydra.run.dir={tmp_path}"])
    assert run_app(lambda *_: 0.5, name="app", conf=CONF, end_sweep=end)
