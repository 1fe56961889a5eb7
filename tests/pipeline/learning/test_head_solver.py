"""The solver of heads: its minimum is logistic regression's, wherever decay pulls, and however samples are weighted."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from pipeline.learning import head_solver
from pipeline.learning.balance import class_weights
from pipeline.learning.head_solver import DECAYS, Objective, follow_path, has_ended, read_weights
from pipeline.model.head import Head, build_head, linear_of, standardise_of


def samples(count: int = 90, num_features: int = 6, num_classes: int = 3) -> tuple[Tensor, Tensor]:
    """Classes of unequal size that overlap, and features of unequal scale."""
    generator = torch.Generator().manual_seed(3)
    targets = (torch.arange(count) % (num_classes + 2)).clamp(max=num_classes - 1)
    centres = torch.randn(num_classes, num_features, generator=generator)
    inputs = centres[targets] + torch.randn(count, num_features, generator=generator)
    return inputs * torch.tensor([100.0, 1.0, 0.1, 3.0, 1.0, 1.0]) + 5.0, targets


def solve(head: Head, inputs: Tensor, targets: Tensor, decay: float, weights: Tensor | None = None) -> np.ndarray:
    """Probabilities of the solved head."""
    assert len([*follow_path(head, inputs, targets, class_weights=weights, decays=(decay,))]) == 1
    with torch.no_grad():
        probs: np.ndarray = head.eval()(inputs).double().softmax(1).numpy()
    return probs


@pytest.mark.parametrize("decay", [1.0, 0.01])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_minimum_is_that_of_logistic_regression(decay: float, balanced: bool) -> None:
    inputs, targets = samples()
    head = build_head(inputs, 3, dropout=0.5, seed=0)
    weights = class_weights(targets) if balanced else None
    found = solve(head, inputs, targets, decay, weights)
    standard = standardise_of(head)(inputs).double().numpy()
    reference = LogisticRegression(
        C=1 / (decay * len(targets)), class_weight="balanced" if balanced else None, tol=1e-9, max_iter=1000
    )
    np.testing.assert_allclose(found, reference.fit(standard, targets.numpy()).predict_proba(standard), atol=2e-4)


def test_the_gradient_is_that_of_autograd_and_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets = samples()
    head, weights = build_head(inputs, 3, dropout=0.0, seed=1), class_weights(targets)
    loss = F.cross_entropy(head.double()(inputs.double()), targets, weight=weights.double(), reduction="sum") / 90
    loss.backward()  # type: ignore[no-untyped-call]
    layer = linear_of(head)
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    wanted = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1)
    for rows, held in ((8192, 2**26), (7, 2**26), (7, 0)):
        monkeypatch.setattr(head_solver, "_ROWS", rows)
        monkeypatch.setattr(head_solver, "_HELD", held)
        value, gradient = Objective(head, inputs, targets, weights)(read_weights(head))
        assert value == pytest.approx(loss.item(), rel=1e-9)
        torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-9)


def test_decay_pulls_to_a_head_that_knows_something_and_otherwise_to_zero() -> None:
    inputs, targets = samples()
    knowing = build_head(inputs, 3, dropout=0.0, seed=0)
    solve(knowing, inputs, targets, 0.01)
    before = read_weights(knowing)
    solve(knowing, inputs, targets, 1e6)
    torch.testing.assert_close(read_weights(knowing)[:, :-1], before[:, :-1], rtol=0, atol=1e-5)
    guessing = build_head(inputs, 3, dropout=0.0, seed=0)
    solve(guessing, inputs, targets, 1e6)
    assert read_weights(guessing)[:, :-1].abs().max() < 1e-5


def test_a_path_is_followed_from_strong_to_weak_and_counts_its_passes() -> None:
    inputs, targets = samples()
    losses: list[float] = []
    path = follow_path(
        build_head(inputs, 3, dropout=0.0, seed=0),
        inputs,
        targets,
        class_weights=None,
        decays=DECAYS[:5],
        on_pass=losses.append,
    )
    minima = [*path]
    assert [m.weight_decay for m in minima] == list(DECAYS[:5])
    assert [losses[m.passes - 1] for m in minima] == sorted((losses[m.passes - 1] for m in minima), reverse=True)
    assert minima[-1].passes == len(losses)


@pytest.mark.parametrize("decay", [0.0, 1e-6])
def test_classes_without_a_mistake_end_too(decay: float) -> None:
    inputs = torch.eye(4)
    found = solve(build_head(inputs, 4, dropout=0.0, seed=0), inputs, torch.arange(4), decay)
    assert found.diagonal().min() > 0.99


@pytest.mark.parametrize(
    ("losses", "ended"),
    [
        ([], False),
        ([3.0, 2.0, 1.0, 0.9], False),
        ([1.0, 1.1, 1.2], False),
        ([1.0, 1.1, 1.2, 1.3], True),
        ([1.0, 1.1, 1.2, 0.9], False),
        ([2.0, 1.0, 1.0, 1.0, 1.0], True),
        ([0.5, 0.11], False),
        ([0.5, 0.09], True),
    ],
)
def test_the_path_ends_when_three_decays_are_no_better_or_ten_images_lose_nothing(
    losses: list[float], ended: bool
) -> None:
    assert has_ended(losses, 10) == ended
