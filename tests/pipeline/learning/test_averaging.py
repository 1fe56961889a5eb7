"""Averaged snapshots: the mean itself, batch norm's statistics by brute force, and kept only if better."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.learning.averaging import average_cycles, load_mean, mean_state
from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.head_learner import TensorBatches
from pipeline.learning.loop import Learner, ParameterGroup, evaluate


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
        torch.save(state, folder / f"cycle-{cycle}.pt")
        learner.model.load_state_dict(state)
        loss, accuracy = evaluate(learner, learner.valid)
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


def test_batch_norm_is_measured_anew_without_dropout(tmp_path: Path) -> None:
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


def test_frozen_batch_norm_is_left_alone(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(norm, nn.Linear(4, 2))
    learner = learner_of(model, torch.randn(8, 4) + 3, torch.arange(8) % 2)
    frozen = Learner(**{**vars(learner), "set_mode": lambda: norm.eval()})
    keep([copy.deepcopy(model.state_dict())] * 2, frozen, tmp_path)
    load_mean(frozen, [0, 1], tmp_path)
    assert norm.running_mean is not None
    assert not norm.running_mean.any()


def linear_states(*slopes: float) -> list[dict[str, Tensor]]:
    """Weights of a line: targets are right at slope 1 and noisy, so that the loss has its minimum near 1."""
    return [{"weight": torch.tensor([[-s], [s]]), "bias": torch.zeros(2)} for s in slopes]


@pytest.mark.parametrize(
    ("slopes", "expected"),
    [((0.0, 0.5, 1.5), {1, 2}), ((0.0, 1.0, 5.0), {1})],
    ids=["both sides of the minimum: the mean is better", "at the minimum: nothing is better"],
)
def test_a_mean_is_kept_only_if_it_is_better(slopes: tuple[float, ...], expected: set[int], tmp_path: Path) -> None:
    inputs = torch.ones(1000, 1)
    targets = (torch.arange(1000) < 1000 * torch.sigmoid(torch.tensor(2.0))).long()  # a slope of 1 says just that
    learner = learner_of(nn.Linear(1, 2), inputs, targets, micro_batch_size=1000)
    states = linear_states(*slopes)
    ends = keep(states, learner, tmp_path)
    averaged = average_cycles(learner, ends, tmp_path)
    assert set(averaged.cycles) == expected
    assert averaged.valid_loss == evaluate(learner, learner.valid)[0]
    assert averaged.best_valid_loss == min(e.valid_loss for e in ends)
    assert (averaged.valid_loss < averaged.best_valid_loss) == (len(expected) > 1)
    wanted = mean_state([states[c] for c in averaged.cycles])
    assert all(torch.equal(wanted[n], t) for n, t in learner.model.state_dict().items())
    assert f"{averaged.best_valid_loss:.4f}" in averaged.sentence
