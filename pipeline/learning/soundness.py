"""Is training sound? Losses, gradients, weights and answers are checked before a step takes effect, and before anything
is kept. The errors name the images, the step and the rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.learning.sources import Batch, BatchSource
from pipeline.model.finite import all_finite, broken_rows, describe_broken, listed
from pipeline.numbers import NumbersError

AGAIN = "the stage that it is from must be made again"
NO_RATE = "so no rate is to blame: check model.weights and, with model.precision=bf16, try fp32"


class NotFiniteError(ArithmeticError):
    """A step whose loss or gradients are NaN or infinite: the weights are as before it. The message says which."""


class DivergedError(NumbersError):
    """Training whose loss or weights became NaN or infinite; the message says when, and which setting to lower."""


@dataclass(frozen=True)
class Guard:
    """What is checked of a training run."""

    model: nn.Module
    optimizer: Optimizer
    advice: str
    """Which setting to lower where a rate may be to blame."""

    def check_weights(self, step: int) -> None:
        """Check weights, statistics and momentum after `step` updates; raises DivergedError, or NumbersError at 0."""
        tensors = self.model.state_dict() | _kept_tensors(self.optimizer)
        if all_finite(tensors.values()):
            return
        finding = describe_broken(tensors)
        if not step:
            raise NumbersError(f"before the first step, {finding}: {AGAIN}")
        raise DivergedError(f"after step {step - 1}, {finding}: {self.advice}")

    def check_answers(self, logits: Tensor, source: BatchSource, split: str, step: int) -> None:
        """Check the logits [N, num_classes] of all samples of `source`; raises as `check_weights` does."""
        if all_finite([logits]):
            return
        names = listed([source.name(i, draw=0) for i in broken_rows(logits)])
        finding = f"the model's answer for {names} (of {split}) is NaN or infinite"
        if not step:
            raise NumbersError(f"before the first step, {finding}, {NO_RATE}")
        raise DivergedError(f"after step {step - 1}, {finding}: {self.advice}")

    def explain(
        self, error: NotFiniteError, step: int, names: Sequence[str], batch: Batch, *, lr: float
    ) -> NumbersError:
        """The error to raise for update number `step`, at the rate `lr`, on a rank's samples, with these names."""
        at = f"at step {step}, with lr {lr:.3g}"
        parts = [inputs for inputs, _ in batch.parts]
        if parts and (broken := broken_rows(torch.cat(parts))):
            return NumbersError(
                f"the values of {listed([names[i] for i in broken])} are NaN or infinite, {at}: {AGAIN}"
            )
        finding = f"{error} {at}, on the batch of {listed(names)}"
        if not step:
            return NumbersError(f"{finding}; it was the first step, {NO_RATE}")
        return DivergedError(f"{finding}: {self.advice}")


def _kept_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """What the optimizer keeps of earlier steps, such as momentum."""
    return {
        f"{name} of parameter {i}": value
        for i, held in optimizer.state_dict()["state"].items()
        for name, value in held.items()
        if isinstance(value, Tensor)
    }
