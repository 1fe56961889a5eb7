"""A head that is trained to its minimum: its candidates, its files, and what is kept."""

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from pipeline.files import read_json
from pipeline.journal import Journal, read_points
from pipeline.learning import activation_learners
from pipeline.learning.activation_learners import on_activations
from pipeline.learning.head_path import train_to_minimum
from pipeline.learning.head_solver import DECAYS
from pipeline.learning.loop import Learner
from pipeline.learning.sources import in_order
from pipeline.model.compute import evaluate
from pipeline.model.head import build_head
from pipeline.settings import HeadTraining, Runtime, read_settings
from pipeline.workspace import Workspace
from tests.conftest import Compose
from tests.pipeline.learning.test_head_solver import samples

VIEWS = 3


@pytest.fixture
def settings(compose_conf: Compose) -> HeadTraining:
    return dataclasses.replace(
        read_settings(compose_conf("head_train=lbfgs"), source="conf").head_train, snapshots="best"
    )


@pytest.fixture
def learner(runtime: Runtime) -> Learner:
    return make_learner(runtime)


def make_learner(runtime: Runtime) -> Learner:
    inputs, targets = samples()
    views = torch.stack([inputs[:60] + i for i in range(VIEWS)])
    splits = {
        "train": {"activations": views, "targets": targets[:60]},
        "valid": {"activations": inputs[None, 60:], "targets": targets[60:]},
    }
    return on_activations(build_head(inputs[:60], 3, dropout=0.1, seed=0), splits, runtime, micro_batch_size=16)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    with closing(Journal(out / "journal.jsonl")) as journal:
        yield Workspace("head_train", 0, out, scratch, journal, 1e9)


def test_the_plain_loss_of_many_images_is_that_of_a_sample(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_learner(runtime)
    assert whole.train_plain.num_samples == 60
    monkeypatch.setattr(activation_learners, "PLAIN_ACTIVATIONS", 20)
    sampled = make_learner(runtime)
    [(inputs, targets)] = in_order(sampled.train_plain, 60)
    [(all_inputs, all_targets)] = in_order(whole.train_plain, 60)
    rows = [int((all_inputs == row).all(1).nonzero()[0, 0]) for row in inputs]
    assert len(set(rows)) == 20
    assert torch.equal(targets, all_targets[rows])
    assert sampled.train.num_samples == 60


def valid_loss(learner: Learner) -> float:
    return evaluate(learner, in_order(learner.valid, 16))[0]


def test_each_decay_is_a_candidate_and_the_best_is_kept(
    learner: Learner, settings: HeadTraining, workspace: Workspace
) -> None:
    metrics = train_to_minimum(learner, settings, workspace, class_weights=None)
    cycles = read_json(workspace.out / "cycles.json")
    ends, decays = cycles["ends"], cycles["weight_decays"]
    assert decays == list(DECAYS[: len(ends) - 1])
    assert (cycles["solver"], cycles["views"], cycles["num_cycles"]) == ("lbfgs", VIEWS, len(decays))
    best = min(ends, key=lambda end: end["valid_loss"])
    assert metrics["kept_cycle"] == best["cycle"] > 0
    assert metrics["weight_decay"] == decays[best["cycle"] - 1]
    assert metrics["valid_loss"] == best["valid_loss"] == pytest.approx(valid_loss(learner))
    points = read_points(workspace.journal.path)
    assert [points[end["step"] - 1]["valid_loss"] for end in ends] == [end["valid_loss"] for end in ends]
    assert [step for step, row in points.items() if "train_loss" in row] == list(range(ends[-1]["step"]))


def test_a_better_head_from_before_is_kept(learner: Learner, settings: HeadTraining, workspace: Workspace) -> None:
    knowing = dataclasses.replace(learner, valid=learner.train_plain)
    train_to_minimum(knowing, dataclasses.replace(settings, weight_decay=0.01), workspace, class_weights=None)
    before = copy.deepcopy(learner.model.state_dict())
    noise = torch.Generator().manual_seed(1)
    train = copy.copy(learner.train)
    train.targets = torch.randint(3, (60,), generator=noise)
    misled = dataclasses.replace(learner, train=train, valid=learner.train_plain)
    metrics = train_to_minimum(misled, settings, workspace, class_weights=None)
    assert (metrics["kept_cycle"], metrics["weight_decay"]) == (0, None)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.model.state_dict().items())


def test_a_killed_run_starts_again_and_ends_in_the_same_bytes(
    learner: Learner, settings: HeadTraining, workspace: Workspace
) -> None:
    start = copy.deepcopy(learner.model.state_dict())
    workspace.journal.points(0, train_loss=9.0)
    found = []
    for _ in range(2):
        learner.model.load_state_dict(start)
        with closing(Journal(workspace.journal.path)) as journal:
            again = dataclasses.replace(workspace, journal=journal)
            train_to_minimum(learner, settings, again, class_weights=None)
        found.append((journal.path.read_bytes(), (workspace.out / "cycles.json").read_bytes()))
    assert found[0] == found[1]


def test_one_decay_is_solved_alone(learner: Learner, settings: HeadTraining, workspace: Workspace) -> None:
    one = dataclasses.replace(settings, weight_decay=0.02, snapshots="none")
    metrics = train_to_minimum(learner, one, workspace, class_weights=None)
    assert (metrics["kept_cycle"], metrics["weight_decay"]) == (1, 0.02)
    assert read_json(workspace.out / "cycles.json")["weight_decays"] == [0.02]
