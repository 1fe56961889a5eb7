"""A search ends in the same trials however often it was killed, and records what failed and what was pruned."""

import ast
import csv
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.files import read_json, write_json
from pipeline.harness.compose import run_app
from pipeline.harness.job_record import PrunedError, job_record
from pipeline.harness.pruning import REPORTS, TRIAL, cycle_ends, pruning
from pipeline.harness.search import Range, Search, Space, open_storage
from pipeline.harness.sweep import STUDY, Sweep
from pipeline.harness.typed import is_integer
from pipeline.journal import Journal
from tests.conftest import PROJECT

SPACE: Space = {"a": Range(1, 5, is_integer=True), "b": Range(1e-4, 1.0, is_log=True), "c": ["x", "y"]}


class KilledError(BaseException):
    pass


def run_jobs(folder: Path) -> Callable[[Sequence[Sequence[str]], int], None]:
    """A launcher: job {a, b, c} has two cycle ends, is pruned by the others' median, and fails for a=3, c=y."""

    def launch(jobs: Sequence[Sequence[str]], first: int) -> None:
        del first
        for words in jobs:
            values = dict(word.split("=") for word in words)
            job = folder / values.pop("hydra.sweep.subdir")
            with suppress(ValueError, PrunedError), job_record(job, program="app", overrides=words[:-1]) as record:
                if values["a"] == "3" and values["c"] == "y":
                    raise ValueError("a=3 and c=y")
                loss = abs(int(values["a"]) - 4) + float(values["b"])
                watch = pruning(job, lambda *_: nullcontext(lambda: None), stage="s", num_cycles=2)
                with watch("s", job / "j") as wake, closing(Journal(job / "j", on_append=wake)) as journal:
                    for epoch in range(3):
                        journal.points(epoch, valid_loss=loss + 2 - epoch)
                        journal.points(epoch, train_plain_loss=0.1)
                record["objective"] = {"name": "s/loss", "value": loss}

    return launch


def search(folder: Path, *, n_trials: int = 14, n_jobs: int = 1, launch: Any = None) -> list[list[str]]:
    """Search; gives the rows of `trials.csv`."""
    folder.mkdir(exist_ok=True)
    sweep = Sweep(folder, "app", "app", "asked", "x", launch or run_jobs(folder), False)
    Search(sweep, SPACE, ["seed=1"], n_trials, n_jobs, seed=0, n_startup_trials=4, pruner="median").run()
    with (folder / "trials.csv").open() as file:
        return list(csv.reader(file))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("n_jobs", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_search_killed_at_any_time_ends_in_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_jobs: int
) -> None:
    expected = search(tmp_path / "whole", n_jobs=n_jobs)
    states = [row[expected[0].index("state")] for row in expected[1:]]
    assert {"done", "pruned", "failed"} <= set(states)
    steps = 0

    def count(step: str, path: Path) -> None:
        nonlocal steps
        steps += 1
        if steps in killed_at:
            raise KilledError(f"{step} {path}")

    monkeypatch.setattr(files, "before_step", count)
    killed_at = {31, 72, 145, 210, 333, 404}
    kills = 0
    while True:
        try:
            found = search(tmp_path / "killed", n_jobs=n_jobs)
        except KilledError:
            kills += 1
            with (tmp_path / "killed" / STUDY).open("ab") as file:
                file.write(b'{"op_code": 4, "wor')  # as a kill within a write leaves it
            (tmp_path / "killed" / f"{STUDY}.lock").symlink_to("gone")
        else:
            break
    assert kills >= 3
    assert found == expected


def test_integers_stay_integers_and_equal_trials_run_once(tmp_path: Path) -> None:
    ran: list[str] = []
    inner = run_jobs(tmp_path / "s")

    def launch(jobs: Sequence[Sequence[str]], first: int) -> None:
        ran.extend(json.dumps(job[:-1]) for job in jobs)
        inner(jobs, first)

    rows = search(tmp_path / "s", n_trials=20, launch=launch)
    assert len(rows) == 21
    assert len(set(ran)) == len(ran)
    values = [dict(word.split("=") for word in json.loads(job)) for job in ran]
    assert all(value["a"] in "12345" and 1e-4 <= float(value["b"]) <= 1 and value["seed"] == "1" for value in values)
    assert all(len(value["b"]) <= 9 for value in values), "four digits"
    assert search(tmp_path / "s", n_trials=22)[0] == rows[0]
    assert sum(row[0] in [str(i) for i in range(20)] for row in search(tmp_path / "s", n_trials=22)) == 20


def test_a_trial_that_is_killed_each_time_has_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    inner = run_jobs(tmp_path / "s")

    def launch(jobs: Sequence[Sequence[str]], first: int) -> None:
        if "hydra.sweep.subdir=1" in jobs[0]:
            raise RuntimeError("a worker was killed")
        inner(jobs, first)

    rows = search(tmp_path / "s", n_trials=4, launch=launch)
    (killed,) = [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if row[0] == "1"]
    assert (killed["state"], killed["error"]) == ("failed", "was killed")
    assert len(rows) == 5


def test_a_trial_is_pruned_at_the_end_of_a_cycle_but_not_of_its_last(tmp_path: Path) -> None:
    others = [[[1, 0.5], [3, 0.4]], [[1, 0.6], [3, 0.5]], [[1, 0.7], [3, 0.6]]]

    def follow(losses: Sequence[float], *, num_cycles: int, startup: int = 3) -> int:
        """Train for these losses after epochs 0, 1, 2, 3, with cycles that end after 1 and 3; gives how far it came."""
        write_json(tmp_path / TRIAL, {"pruner": "median", "n_startup_trials": startup, "others": others})
        (tmp_path / "j").unlink(missing_ok=True)
        done = 0
        watch = pruning(tmp_path, lambda *_: nullcontext(lambda: None), stage="s", num_cycles=num_cycles)
        with watch("s", tmp_path / "j") as wake:
            journal = Journal(tmp_path / "j", on_append=wake)
            with suppress(PrunedError):
                for epoch, loss in enumerate(losses):
                    journal.points(epoch, train_loss=9.0, lr=0.1)
                    journal.points(epoch, valid_loss=loss)
                    if epoch in (0, 1, 3):
                        journal.points(epoch, train_plain_loss=0.1)
                    done = epoch
            journal.close()
        return done

    assert follow([9.0, 0.59, 0.2, 0.49], num_cycles=3) == 3
    assert cycle_ends(tmp_path / "j") == {1: 0.59, 3: 0.49}
    assert read_json(tmp_path / REPORTS) == [[1, 0.59], [3, 0.49]]
    assert follow([9.0, 0.61, 0.2, 0.49], num_cycles=3) == 0
    assert follow([9.0, 0.61, 0.2, 0.49], num_cycles=3, startup=4) == 3
    assert follow([9.0, 0.59, 0.2, 0.58], num_cycles=3) == 2
    assert follow([9.0, 0.59, 0.2, 0.58], num_cycles=2) == 3


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Start an app with `-m hydra/sweeper=search` and these words; gives the overrides of its jobs."""
    shutil.copytree(PROJECT / "conf", tmp_path / "conf")

    def start(*words: str) -> list[list[str]]:
        ran: list[list[str]] = []

        def job(_params: dict[str, Any], _folder: Path, overrides: list[str]) -> float:
            ran.append(overrides)
            if "full_train.snapshots=average" in overrides:
                raise ValueError("not liked")
            return float(len(ran))

        monkeypatch.setattr("sys.argv", ["app", "-m", "hydra/sweeper=search", *words])
        assert run_app(job, name="app", conf=tmp_path / "conf", objective="full_train/valid_loss")
        return ran

    return start


def test_ranges_and_choices_are_typed_as_for_any_sweeper_of_hydra(typed: Callable[..., list[list[str]]]) -> None:
    words = ["full_train.cycle_len=interval(1,3)", "full_train.lr=tag(log,interval(1e-3,1e-1))", "seed=5"]
    ran = typed(*words, "full_train.snapshots=best,cautious", "hydra.sweeper.n_trials=3")
    assert len(ran) == 3
    for job in ran:
        values = dict(word.split("=") for word in job)
        assert values["full_train.cycle_len"] in ("1", "2", "3")
        assert 1e-3 <= float(values["full_train.lr"]) <= 1e-1
        assert values["full_train.snapshots"] in ("best", "cautious")
        assert values["seed"] == "5"
    assert len(typed(*words, "full_train.snapshots=best,cautious", "hydra.sweeper.n_trials=5")) == 2, "goes further"


def test_failed_trials_are_no_failure_of_the_search(typed: Callable[..., list[list[str]]]) -> None:
    ran = typed("full_train.snapshots=best,average,none", "hydra.sweeper.n_trials=4")
    assert "full_train.snapshots=average" in {word for job in ran for word in job}, "the fixture asserts the status"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("full_train.cycle_len=interval(1,2.5)", "full_train.cycle_len is a whole number"),
        ("full_train.lr=interval(1,0.1)", "this is no range"),
        ("seed=1", "nothing to search in"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    typed: Callable[..., list[list[str]]], word: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        typed(word)
    assert said in capfd.readouterr().err


def test_without_optuna_the_error_names_the_extra(
    typed: Callable[..., list[list[str]]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "pipeline.harness.search")
    monkeypatch.delattr("pipeline.harness.search")
    with pytest.raises(SystemExit):
        typed("full_train.cycle_len=interval(1,3)")
    assert "pip install 'unfreeze[search]'" in capfd.readouterr().err


def test_a_range_without_the_search_is_refused_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["app", "-m", "full_train.lr=interval(0.1,1)", f"hydra.sweep.dir={tmp_path}/s"])
    with pytest.raises(SystemExit):
        run_app(lambda *_: 0.5, name="app", conf=PROJECT / "conf")
    assert "type hydra/sweeper=search beside it" in capfd.readouterr().err


def test_hydra_does_not_load_optuna_with_the_plugin() -> None:
    for file in (PROJECT / "hydra_plugins").glob("*.py"):
        top = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        named = " ".join(ast.unparse(node) for node in top)
        assert "optuna" not in named
        assert "harness.search" not in named


def test_settings_that_are_whole_numbers_are_known() -> None:
    assert [key for key in ("full_train.cycle_len", "full_train.batch_size", "seed") if is_integer(key)] == [
        "full_train.cycle_len",
        "full_train.batch_size",
        "seed",
    ]
    assert not any(map(is_integer, ("full_train.lr", "unfreeze.lr_ratio", "model.arch", "no.setting")))


def test_what_a_kill_left_half_written_in_the_study_goes(tmp_path: Path) -> None:
    search(tmp_path / "s", n_trials=2)
    whole = (tmp_path / "s" / STUDY).read_bytes()
    (tmp_path / "s" / STUDY).write_bytes(whole + b'{"half')
    open_storage(tmp_path / "s")
    assert (tmp_path / "s" / STUDY).read_bytes() == whole
