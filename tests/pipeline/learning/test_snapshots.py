"""Snapshots: means of weights and of predictions by brute force, combined only if that is better."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.learning.checkpoint import CycleEnd, save_snapshot
from pipeline.learning.loop import Learner, ParameterGroup
from pipeline.learning.snapshots import build_kept_model, keep_snapshots, load_mean, mean_state
from pipeline.learning.sources import TensorBatches, in_order
from pipeline.model.compute import evaluate, predict, score
from pipeline.settings import Snapshots


def learner_of(model: nn.Module, inputs: Tensor, targets: Tensor, *, micro_batch_size: int = 8) -> Learner:
    source = TensorBatches(inputs, targets)
    group = ParameterGroup("all", list(model.parameters()), 1.0)

    def set_mode() -> None:
        model.train()

    cpu = torch.device("cpu")
    return Learner(model, cpu, "fp32", micro_batch_size, [group], source, source, source, set_mode)


def keep(states: list[dict[str, Tensor]], learner: Learner, folder: Path) -> list[CycleEnd]:
    """Write the snapshots, and measure them as training does."""
    ends = []
    for cycle, state in enumerate(states):
        learner.model.load_state_dict(state)
        logits, targets = predict(learner, in_order(learner.valid, learner.micro_batch_size))
        save_snapshot(folder, cycle, state, valid=logits, train_plain=logits)
        loss, accuracy = score(logits, targets)
        ends.append(CycleEnd(cycle, cycle, cycle, loss, loss, accuracy))
    return ends


def test_the_mean_of_two_known_states() -> None:
    states = [
        {"w": torch.tensor([1.0, 4.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([3.0, 0.0]), "n": torch.tensor(9)},
    ]
    mean = mean_state(states)
    assert torch.equal(mean["w"], torch.tensor([2.0, 2.0]))
    assert mean["w"].dtype == torch.float32
    assert mean["n"].item() == 3


def test_batch_norm_is_measured_again_without_dropout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, norm = nn.Linear(5, 4), nn.BatchNorm1d(4)
    model = nn.Sequential(first, nn.Dropout(0.5), norm, nn.Linear(4, 2))
    inputs = torch.randn(24, 5)
    learner = learner_of(model, inputs, torch.arange(24) % 2)
    states = []
    for _ in range(2):
        nn.init.normal_(first.weight)
        states.append(copy.deepcopy(model.state_dict()))
    keep(states, learner, tmp_path)
    load_mean(learner, [0, 1], tmp_path)
    weight = (states[0]["0.weight"] + states[1]["0.weight"]) / 2
    parts = (inputs @ weight.T + first.bias).detach().split(8)
    torch.testing.assert_close(norm.running_mean, torch.stack([p.mean(0) for p in parts]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([p.var(0) for p in parts]).mean(0))
    assert norm.momentum == 0.1
    assert not norm._forward_pre_hooks


def test_frozen_batch_norm_is_unchanged(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(norm, nn.Linear(4, 2))
    learner = learner_of(model, torch.randn(8, 4) + 3, torch.arange(8) % 2)

    def set_mode() -> None:
        norm.eval()

    frozen = replace(learner, set_mode=set_mode)
    keep([copy.deepcopy(model.state_dict())] * 2, frozen, tmp_path)
    load_mean(frozen, [0, 1], tmp_path)
    assert norm.running_mean is not None
    assert not norm.running_mean.any()


SHARE = torch.sigmoid(torch.tensor(2.0))
"""The share of the second class, as a line of slope 1 predicts it."""


@pytest.fixture(params=[False, True], ids=["by passes", "by logits"])
def line(request: pytest.FixtureRequest) -> Learner:
    """A line through the origin whose slope says how probable the second class is; 1 is correct."""
    targets = (torch.arange(1000) < 1000 * SHARE).long()
    made = learner_of(nn.Linear(1, 2), torch.ones(1000, 1), targets, micro_batch_size=1000)
    return replace(made, linear=request.param)


def states_of(*slopes: float) -> list[dict[str, Tensor]]:
    return [{"weight": torch.tensor([[-s], [s]]), "bias": torch.zeros(2)} for s in slopes]


@pytest.mark.parametrize("how", ["average", "ensemble"])
@pytest.mark.parametrize(
    ("slopes", "expected"),
    [((0.0, 0.5, 1.5), [2, 1]), ((0.0, 1.0, 5.0), [1])],
    ids=["both sides of the minimum: together they are better", "at the minimum: nothing is better"],
)
def test_cycles_are_combined_only_if_that_is_better(
    how: Snapshots, slopes: tuple[float, ...], expected: list[int], line: Learner, tmp_path: Path
) -> None:
    ends = keep(states_of(*slopes), line, tmp_path)
    kept = keep_snapshots(line, ends, tmp_path, how)
    assert kept.cycles == expected
    assert (kept.valid_loss < min(e.valid_loss for e in ends)) == (len(expected) > 1)
    joined = torch.tensor([slopes[cycle] for cycle in expected])
    probable = (2 * joined.mean()).sigmoid() if how == "average" else (2 * joined).sigmoid().mean()
    loss = -(SHARE * probable.log() + (1 - SHARE) * (1 - probable).log())
    assert kept.valid_loss == pytest.approx(loss.item(), abs=1e-3)  # 881 of 1,000 targets, not 880.8
    published = replace(line, model=build_kept_model(line, kept, tmp_path))
    assert evaluate(published, in_order(line.valid, line.micro_batch_size)) == pytest.approx(
        (kept.valid_loss, kept.valid_accuracy)
    )
    assert (kept.train_loss, kept.valid_accuracy) == pytest.approx((kept.valid_loss, 0.881))
    first = next(iter(published.model.state_dict()))
    assert first.startswith("members.") == (how == "ensemble" and len(expected) > 1)


@pytest.mark.parametrize(
    ("how", "cycles"),
    [("none", [2]), ("best", [1]), ("average", [1, 0]), ("ensemble", [1, 0, 2])],
)
def test_which_cycles_are_kept_and_loaded(how: Snapshots, cycles: list[int], line: Learner, tmp_path: Path) -> None:
    states = states_of(0.5, 1.4, 5.0)
    kept = keep_snapshots(line, keep(states, line, tmp_path), tmp_path, how)
    assert kept.cycles == cycles
    wanted = mean_state([states[c] for c in cycles]) if how == "average" else states[cycles[0]]
    assert all(torch.equal(wanted[n], t) for n, t in line.model.state_dict().items())


@pytest.mark.parametrize(
    ("slopes", "cycles"),
    [((0.2, 0.6, 1.0), [2]), ((0.96, 5.0, 1.0), [2, 0]), ((1.0, 0.6, 1.4), [0])],
    ids=["a clear gain is taken whole", "a gain that may be luck is taken half", "no gain is left"],
)
def test_a_cautious_choice(slopes: tuple[float, ...], cycles: list[int], line: Learner, tmp_path: Path) -> None:
    states = states_of(*slopes)
    ends = keep(states, line, tmp_path)
    kept = keep_snapshots(line, ends, tmp_path, "cautious")
    assert kept.cycles == cycles
    wanted = mean_state([states[c] for c in cycles])
    assert all(torch.equal(wanted[n], t) for n, t in line.model.state_dict().items())
    assert (kept.valid_loss, kept.valid_accuracy) == pytest.approx(
        evaluate(line, in_order(line.valid, line.micro_batch_size))
    )
    if cycles == [0]:
        assert kept.by_chance is None
    else:
        assert kept.by_chance is not None
        assert (kept.by_chance < 0.05) == (cycles == [2])
