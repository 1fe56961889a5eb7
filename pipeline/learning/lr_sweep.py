"""One learning-rate sweep: train for a few steps at a rate that grows from step to step, and watch the loss.

Source: L. N. Smith 2015, arXiv:1506.01186, section 3.3; with exponential growth, as in fastai. Batch noise is removed
with a control variate: from each batch's loss the loss of the unchanged model on the same batch is subtracted, and the
mean of the latter is added. What is left is the effect of the steps.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch.optim import Optimizer

from pipeline.learning.loop import Learner, batch_loss, build_optimizer, take_step
from pipeline.learning.lr_rules import Curve, Remedy, smooth
from pipeline.learning.soundness import NO_RATE, NotFiniteError
from pipeline.learning.sources import Batch, train_batches
from pipeline.model import ranks
from pipeline.model.batches import even_batches
from pipeline.model.finite import listed
from pipeline.numbers import NumbersError
from pipeline.seeds import permutation
from pipeline.settings import LrFind
from pipeline.workspace import Bar

DIVERGED = 4.0
"""The sweep ends if the running mean of the loss exceeds this multiple of the unchanged model's."""

LOW = 0.1
"""A loss below this counts as this, in nats: one mistake among a few images is no explosion."""

RUNNING = 0.5
"""Weight of earlier steps in that running mean. With few, large steps a sweep must end soon after the loss explodes."""

MEASURED = 32
"""Each step's loss is measured on at least this many samples, where samples are cheap: with fewer, a single mistake
would bend the curve."""

FORWARD = 1 / 3
"""The share of a training step that its forward pass takes."""

FEWEST_STEPS = 16
FEWEST_IMAGES = 8
"""A sweep on images has at least this many steps, each on this many images, if the training set allows."""


@dataclass(frozen=True)
class SweepPlan:
    """From which rate to which, in how many steps, how often, and on how many samples a step."""

    start_lr: float
    end_lr: float
    num_steps: int
    repeats: int
    batch_size: int
    """Samples that each step is made on."""
    measured: int
    """Samples that each step's loss is measured on; those of the step are among them."""

    def __str__(self) -> str:
        return f"{self.start_lr:.3g} to {self.end_lr:.3g} in {self.num_steps} steps"

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest rate."""
        return self.start_lr, self.end_lr

    def rates(self) -> list[float]:
        """The rate of each step, growing by the same factor."""
        rates: list[float] = np.geomspace(self.start_lr, self.end_lr, self.num_steps).tolist()
        return rates

    def widened(self, remedy: Remedy) -> "SweepPlan":
        """The range to sweep next. Rates that do harm are not swept again, for each step takes time."""
        match remedy:
            case "lower":
                return replace(self, start_lr=self.start_lr / 1000, end_lr=10 * self.start_lr)
            case "higher":
                return replace(self, end_lr=100 * self.end_lr, num_steps=self.num_steps + self.num_steps // 2)
            case "longer":
                return replace(self, num_steps=2 * self.num_steps)


def plan_sweeps(settings: LrFind, *, batch_size: int, budget: int | None) -> SweepPlan:
    """Plan sweeps as the settings say; with a `budget`, so that all repeats cost no more than to train on that many
    samples once, if that is enough for the shortest sweep.

    What is saved first is the number of steps, then the samples of each step, then the repeats: a rate is needed to
    within a factor of three, and a step on a quarter of the batch shows where the loss falls and where it explodes.
    """
    if budget is None:
        measured = max(batch_size, MEASURED)
        return SweepPlan(settings.start_lr, settings.end_lr, settings.num_steps, settings.repeats, batch_size, measured)
    max_samples = int(budget / _cost_of_sample(batch_size))
    fewest = min(FEWEST_STEPS, settings.num_steps)
    repeats = min(settings.repeats, max(1, max_samples // (fewest * FEWEST_IMAGES)))
    used = min(max(batch_size, FEWEST_IMAGES), max(FEWEST_IMAGES // 2, max_samples // (fewest * repeats)))
    num_steps = min(settings.num_steps, max(fewest, max_samples // (used * repeats)))
    return SweepPlan(settings.start_lr, settings.end_lr, num_steps, repeats, min(used, batch_size), used)


def _cost_of_sample(batch_size: int) -> float:
    """What a sample costs in a sweep, as a multiple of what it costs in training: that, a pass of the unchanged model,
    and, where a step's loss is measured on more samples than the step is made on, another pass."""
    return 1 + FORWARD * (2 if batch_size < FEWEST_IMAGES else 1)


@dataclass(frozen=True)
class Sweep:
    """The raw points of one repeat, all [num_points]."""

    lrs: list[float]
    losses: list[float]
    references: list[float]
    """Loss of the unchanged model on the same batches."""

    def curve(self, width: float) -> Curve:
        """The sweep with batch noise removed; smoothed over `width` decades, with outliers clipped."""
        lrs, mean = np.array(self.lrs), float(np.mean(self.references)) if self.references else 0.0
        losses = np.array(self.losses) - np.array(self.references) + mean
        return Curve(lrs, losses, smooth(np.minimum(losses, DIVERGED * max(mean, LOW)), lrs, width))


def sweep(learner: Learner, plan: SweepPlan, *, momentum: float, seed: tuple[int | str, ...], bar: Bar) -> Sweep:
    """Sweep once, over the batch order that `seed` decides; the model ends with the weights of the last step.

    Each step is made on the first `plan.batch_size` samples of a batch; its loss is that of all of them, before it.
    """
    learner.set_mode()
    unchanged = copy.deepcopy(learner.model)
    optimizer = build_optimizer(
        learner.groups, 1.0, momentum=momentum, weight_decay=0.0, name=learner.optimizer, fused=learner.unread > 1
    )
    factors = [g["lr"] for g in optimizer.param_groups]
    batches, points = _endless_batches(learner, plan.measured, seed=seed), Sweep([], [], [])
    for step, lr in enumerate(plan.rates()):
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] = lr * factor
        names, batch = next(batches)
        points.lrs.append(lr)
        points.references.append(batch_loss(learner, unchanged, batch, seed=(*seed, step)).item())
        if not math.isfinite(points.references[-1]):
            raise NumbersError(
                f"the loss of the unchanged model is {points.references[-1]} at step {step}, on the batch of "
                f"{listed(names)}, {NO_RATE}"
            )
        points.losses.append(_step(learner, optimizer, batch, plan.batch_size, seed=(*seed, step)))
        ranks.agree_to_stop()
        if _has_diverged(points):
            bar.advance(plan.num_steps - step)
            return Sweep(points.lrs[:-1], points.losses[:-1], points.references[:-1])
        bar.advance(note=f"lr {lr:.1e}  loss {points.losses[-1]:.3f}")
    return points


def _step(
    learner: Learner, optimizer: Optimizer, batch: Batch, batch_size: int, *, seed: tuple[int | str, ...]
) -> float:
    """Make a step on the first `batch_size` samples; returns the loss of all of them, before it; NaN if it broke."""
    try:
        if batch.size <= batch_size:
            return take_step(learner, optimizer, batch, seed=seed).read()
        loss = batch_loss(learner, learner.model, batch, seed=seed).item()
        take_step(learner, optimizer, batch.begin(batch_size, learner.micro_batch_size), seed=seed).read()
    except NotFiniteError:
        return math.nan
    return loss


def _has_diverged(points: Sweep) -> bool:
    """Whether the loss is NaN or infinite, or its running mean far above the unchanged model's on the same batches."""
    if not math.isfinite(points.losses[-1]):
        return True
    weights = RUNNING ** np.arange(len(points.losses))[::-1]
    excess = np.average(np.array(points.losses) - np.array(points.references), weights=weights)
    return bool(excess > (DIVERGED - 1) * max(float(np.mean(points.references)), LOW))


def _endless_batches(
    learner: Learner, batch_size: int, *, seed: tuple[int | str, ...]
) -> Iterator[tuple[list[str], Batch]]:
    """Names of samples, and their batch, over as many epochs as the sweep needs."""
    epoch = 0
    while True:
        order = even_batches(permutation(learner.train.num_samples, *seed, "order", epoch), batch_size)
        batches = train_batches(learner.train, order, micro_batch_size=learner.micro_batch_size, draw=epoch)
        for samples, batch in zip(order, batches, strict=True):
            yield [learner.train.name(i, draw=epoch) for i in samples], batch
        epoch += 1
