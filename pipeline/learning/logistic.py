"""Logistic regression on features: the optimum of a convex problem, so there is no rate and no order of batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.model.finite import all_finite, check_tensors
from pipeline.model.head import Standardise
from pipeline.numbers import NumbersError
from pipeline.stopping import raise_if_requested

PENALTIES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""The L2 penalties to choose from, the strongest first."""

_MAX_STEPS = 300


@dataclass(frozen=True)
class Logistic:
    """A fitted model: features to probabilities."""

    standardise: Standardise
    weight: Tensor
    """[num_present, num_features]"""
    bias: Tensor
    """[num_present]"""
    present: Tensor
    """[num_present], the classes that occurred among the targets; the others get the probability 0."""
    num_classes: int

    def predict(self, features: Tensor) -> Tensor:
        """Return probabilities [N, num_classes] in float64 for features [N, num_features]."""
        probs = torch.zeros(len(features), self.num_classes, dtype=torch.float64)
        probs[:, self.present] = (self.standardise(features.double()) @ self.weight.T + self.bias).softmax(1)
        return probs


def fit_logistic(
    features: Tensor, targets: Tensor, penalties: Sequence[float], *, num_classes: int
) -> Iterator[Logistic]:
    """Yield a model for each penalty in turn; each search starts where the one before it ended.

    A model minimises the mean cross entropy plus penalty / 2 times the sum of all squared weights (so scikit-learn's C
    is 1 / (penalty * N)). Biases are free. Computed in float64 with L-BFGS.

    Args:
        features: [N, num_features], standardised with their own mean and deviation.
        targets: [N] in 0..num_classes-1; not every class need occur.
        penalties: above 0, best in falling order.
        num_classes: the number of probabilities of a prediction.

    Raises NumbersError if a feature or a weight is NaN or infinite.
    """
    check_tensors({"the features": features}, of="logistic regression", advice="run `dvc repro -f precompute`")
    present, within = torch.unique(targets, return_inverse=True)
    standardise = Standardise(features.shape[1]).double()
    standardise.fit(features.double())
    inputs = standardise(features.double())
    weight = torch.zeros(len(present), inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(present), dtype=torch.float64, requires_grad=True)
    for penalty in penalties:
        _minimise(inputs, within, weight, bias, penalty)
        if not all_finite([weight, bias]):
            raise NumbersError(f"logistic regression found no weights for the penalty {penalty:g}")
        yield Logistic(standardise, weight.detach().clone(), bias.detach().clone(), present, num_classes)


def _minimise(inputs: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, penalty: float) -> None:
    """Move `weight` and `bias` to the minimum."""
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_MAX_STEPS,
        tolerance_grad=1e-5,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        raise_if_requested()
        optimizer.zero_grad()
        value = cross_entropy(inputs @ weight.T + bias, targets) + penalty / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
