"""The files that training and the finder leave: all that pictures and sentences are made of."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from pipeline.files import read_json
from pipeline.journal import Journal, read_points
from pipeline.learning.lr_results import find_and_write_lr
from pipeline.learning.schedule import Cycles, planned_rates
from pipeline.learning.soundness import DivergedError
from pipeline.learning.training import run_training
from pipeline.workspace import Workspace
from tests.pipeline.learning.test_loop import PLAN, build_model, learner
from tests.pipeline.learning.test_lr_find import SETTINGS


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    journal = Journal(tmp_path / "out" / "journal.jsonl")
    return Workspace("full_train", 5, tmp_path / "out", tmp_path / "scratch", journal, 1e9)


def test_a_training_leaves_its_cycles_and_its_schedule(workspace: Workspace) -> None:
    lines: list[str] = []
    outcome = run_training(
        learner(build_model()), PLAN, dataclasses.replace(workspace, say=lines.append), snapshots="best"
    )
    workspace.journal.close()
    assert lines == ["cycles of 1 + 2 epochs (sgdr), sgd, batch 8, lr 0.05, 37 images"]
    cycles = read_json(workspace.out / "cycles.json")
    assert cycles.pop("ends") == [dataclasses.asdict(end) for end in outcome.run.ends]
    assert cycles.pop("kept") == dataclasses.asdict(outcome.kept)
    assert cycles.pop("verdict") == dataclasses.asdict(outcome.verdict)
    assert set(cycles.pop("gain")) == {"loss", "accuracy"}
    plain = learner(build_model()).train_plain.num_samples
    error = cycles.pop("train_plain")
    assert error["images"] == plain
    assert 0 < error["standard_error"] < 1
    assert cycles == {
        "num_cycles": 2,
        "cycle_epochs": [1, 2],
        "steps_per_epoch": 5,
        "schedule": "sgdr",
        "optimizer": "sgd",
    }
    with (workspace.out / "schedule.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "early", "head"]
    assert [int(row[0]) for row in rows] == list(range(15))
    planned = planned_rates("sgdr", Cycles(2, 1, 2, 5), [0.05 / 3, 0.05])
    assert [[float(rate) for rate in row[1:]] for row in rows] == pytest.approx(planned)
    used = read_points(workspace.journal.path)
    assert [float(row[-1]) for row in rows] == [used[step]["lr"] for step in range(15)]
    assert sorted(p.name for p in workspace.out.iterdir()) == [
        "cycles.json",
        "journal.jsonl",
        "schedule.csv",
        "valid.csv",
    ]


def test_the_finder_leaves_its_choice_and_its_curves_and_no_words(workspace: Workspace) -> None:
    lines: list[str] = []
    metrics = find_and_write_lr(
        learner(build_model()),
        SETTINGS,
        dataclasses.replace(workspace, say=lines.append),
        batch_size=8,
        momentum=0.9,
        budget=None,
        safe_lr=0.005,
    )
    workspace.journal.close()
    choice = read_json(workspace.out / "lr.json")
    assert metrics == {"lr": choice["lr"], "spread": choice["spread"], "rules": choice["others"]}
    with (workspace.out / "curve.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["repeat"] for row in rows} == {"0", "1", "2"}
    first = [row for row in rows if row["repeat"] == "0"]
    points = read_points(workspace.journal.path)
    assert [(float(r["lr"]), float(r["smoothed_loss"])) for r in first] == [
        (p["swept_lr"], p["smoothed_loss"]) for p in points.values()
    ]
    assert lines == []
    assert all("note" not in json.loads(line) for line in workspace.journal.path.read_text().splitlines())
    assert sorted(p.name for p in workspace.out.iterdir()) == ["curve.csv", "journal.jsonl", "lr.json"]


ONE_STEP = dataclasses.replace(PLAN, num_cycles=1, batch_size=37, lr=1e15)
"""At this rate the product of two layers' weights is too large for a number."""


def test_a_rate_that_was_found_is_lowered_where_it_makes_the_loss_explode(workspace: Workspace) -> None:
    said: list[str] = []
    loud = dataclasses.replace(workspace, say=said.append)
    outcome = run_training(
        learner(build_model()), dataclasses.replace(ONE_STEP, is_lr_found=True), loud, snapshots="none"
    )
    lr = outcome.metrics["lr"]
    assert lr == pytest.approx(1e13)  # the third that was tried
    assert "full_train.lr below 1e+15; the rate was found, so training begins again at a tenth of it" in said[1]
    assert [end.cycle for end in outcome.run.ends] == [0, 1]
    points = read_points(workspace.journal.path)
    assert list(points) == [-1, 0]
    assert points[0]["lr"] == lr
    assert (workspace.out / "schedule.csv").read_text().splitlines()[1].endswith(f",{lr}")

    resumed = run_training(  # of a run that was killed after it had begun again
        learner(build_model()), dataclasses.replace(ONE_STEP, is_lr_found=True), workspace, snapshots="none"
    )
    workspace.journal.close()
    assert resumed.run == outcome.run
    assert read_points(workspace.journal.path) == points


def test_after_three_rates_in_vain_the_next_run_begins_with_the_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = dataclasses.replace(PLAN, is_lr_found=True)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.learning.loop.batch_loss", lambda *_, **__: torch.tensor(math.nan))
        patch.setattr("pipeline.learning.soundness.Guard.explain", lambda *_, **__: DivergedError("faulty memory"))
        with pytest.raises(DivergedError, match="faulty memory"):
            run_training(learner(build_model()), tried, workspace, snapshots="none")
    outcome = run_training(learner(build_model()), tried, workspace, snapshots="none")
    assert outcome.metrics["lr"] == PLAN.lr
    workspace.journal.close()


def test_a_rate_that_was_typed_is_not_changed(workspace: Workspace) -> None:
    with pytest.raises(DivergedError, match=r"set full_train\.lr below 1e\+15"):
        run_training(learner(build_model()), ONE_STEP, workspace, snapshots="none")
    workspace.journal.close()
