"""A head at the minimum of its loss, for several weight decays: what a tuned logistic regression reaches.

A head is one linear layer on fixed activations, so its loss is convex, and L-BFGS finds the minimum in some hundred
passes, which take seconds. What has to be chosen is how far the head may move: the weight decay. A path of them is
followed from strong to weak, each minimum starting from the one before, until the loss on valid stops falling. The
minima are candidates like the cycle ends of SGD, and so is the head as it was before.

Decay pulls towards the head that training starts from, if it predicts better than chance does: then strong decay means
little change. It pulls towards zero otherwise, as in logistic regression.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.model.finite import all_finite, check_rows
from pipeline.model.head import Head, Standardise, linear_of, standardise_of
from pipeline.numbers import NumbersError
from pipeline.stopping import raise_if_requested

DECAYS = tuple(10 / 3**k for k in range(15))
"""Strongest first; the weakest is 2e-6."""

PATIENCE = 3
"""The path ends after this many decays that are no better on valid than the best before them."""

BETTER_THAN_CHANCE = 0.9
"""A head whose training loss is below this share of chance's is what decay pulls to."""

MAX_ITERATIONS = 100
"""For each decay; without decay, and if the classes can be told apart without a mistake, there is no minimum."""

_ROWS = 8192
_HELD = 2**26
"""Up to this many numbers (half a GB) are held in double precision; more are converted in each pass."""

OnPass = Callable[[float], None]
"""Takes the training loss of a pass over the data."""


@dataclass(frozen=True)
class Minimum:
    """The best head for one weight decay."""

    weight_decay: float
    passes: int
    """Over the training data, since the path began."""


class Objective:
    """The loss of a head on activations, in double precision, as a function of its weights [num_classes, features + 1].

    The last column is the bias, which does not decay. Activations stay as they are: standardising is folded into the
    weights.
    """

    def __init__(self, head: Head, activations: Tensor, targets: Tensor, class_weights: Tensor | None) -> None:
        standardise: Standardise = standardise_of(head)
        self.mean, self.scale = standardise.mean.cpu().double(), standardise.scale.cpu().double()
        held = activations.double() if activations.numel() <= _HELD else activations
        self._parts = list(zip(torch.split(held, _ROWS), torch.split(targets, _ROWS), strict=True))
        self._weights = None if class_weights is None else class_weights.cpu().double()
        self._count = len(targets)

    def __call__(self, weights: Tensor) -> tuple[float, Tensor]:
        """Return the mean loss, and its gradient."""
        slope = weights[:, :-1] / self.scale
        offset = weights[:, -1] - slope @ self.mean
        loss, by_slope, by_offset = 0.0, torch.zeros_like(slope), torch.zeros_like(offset)
        for inputs, targets in self._parts:
            rows = inputs.double()
            log_probs = (rows @ slope.T + offset).log_softmax(1)
            own = log_probs.gather(1, targets[:, None])[:, 0]
            error = log_probs.exp_()
            error[torch.arange(len(targets)), targets] -= 1.0
            if self._weights is not None:
                share = self._weights[targets]
                own, error = own * share, error * share[:, None]
            loss -= own.sum().item()
            by_slope += error.T @ rows
            by_offset += error.sum(0)
        by_weight = (by_slope - by_offset[:, None] * self.mean) / self.scale
        return loss / self._count, torch.cat([by_weight, by_offset[:, None]], 1) / self._count


def follow_path(
    head: Head,
    activations: Tensor,
    targets: Tensor,
    *,
    class_weights: Tensor | None,
    decays: Sequence[float],
    on_pass: OnPass = lambda _: None,
) -> Iterator[Minimum]:
    """Yield the minimum for each of `decays`, strongest first; meanwhile `head` has its weights.

    Args:
        head: changed in place. Dropout has no effect.
        activations: [N, num_features], on the CPU.
        targets: [N].
        class_weights: [num_classes], or None for 1 for all.
        decays: half of it, times the squared distance from where decay pulls to, is added to the mean loss.
        on_pass: called after each pass over the data.

    Raises NumbersError if an activation or a minimum is NaN or infinite.
    """
    check_rows(activations, None, of="what is precomputed", advice="run `dvc repro -f precompute`")
    objective = Objective(head, activations, targets, class_weights)
    start = read_weights(head)
    chance = math.log(len(start))
    centre = start if objective(start)[0] < BETTER_THAN_CHANCE * chance else torch.zeros_like(start)
    weights, passes = centre, 0
    for decay in decays:
        weights, count = _minimise(objective, weights, centre, decay, on_pass)
        passes += count
        if not all_finite([weights]):
            raise NumbersError(f"the solver found no head for weight decay {decay:g}: set head_train.solver=sgd")
        _write_weights(head, weights)
        yield Minimum(decay, passes)


def has_ended(losses: Sequence[float], num_valid: int) -> bool:
    """Whether a path with these losses on `num_valid` images of valid has nothing more to gain.

    That is so if the last PATIENCE are no better than the best before them, or if all images together lose less than
    one nat: then there is no mistake to learn from, and weaker decay gives only more confidence, without a limit.
    """
    before, last = losses[:-PATIENCE], losses[-PATIENCE:]
    return bool(losses) and (losses[-1] * num_valid < 1.0 or (bool(before) and min(last) >= min(before)))


def _minimise(objective: Objective, start: Tensor, centre: Tensor, decay: float, on_pass: OnPass) -> tuple[Tensor, int]:
    """L-BFGS from `start`; returns the weights and the number of passes."""
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=min(1e-4, 1e-3 * decay),  # at the minimum the loss's own gradient is decay times what was moved
        tolerance_change=1e-12,
        history_size=10,
        line_search_fn="strong_wolfe",
    )
    passes = 0

    @torch.no_grad()
    def closure() -> float:
        nonlocal passes
        raise_if_requested()
        passes += 1
        loss, gradient = objective(weights)
        on_pass(loss)
        moved = weights - centre
        moved[:, -1] = 0.0
        weights.grad = gradient + decay * moved
        return loss + 0.5 * decay * moved.square().sum().item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach(), passes


def read_weights(head: Head) -> Tensor:
    """The head's weights and bias [num_classes, num_features + 1], in double precision on the CPU."""
    layer = linear_of(head)
    return torch.cat([layer.weight, layer.bias[:, None]], 1).detach().cpu().double()


@torch.no_grad()
def _write_weights(head: Head, weights: Tensor) -> None:
    layer = linear_of(head)
    layer.weight.copy_(weights[:, :-1])
    layer.bias.copy_(weights[:, -1])
