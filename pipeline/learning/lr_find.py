"""The learning-rate finder: train for a moment at a rate that grows from step to step, and watch the loss.

Source: L. N. Smith 2015, arXiv:1506.01186, section 3.3; with exponential growth, as in fastai. Three things make
the curve readable where batches are small and the loss is low already:
- Where batches are small, the loss is measured on more images than a step is made on.
- From each batch's loss that of the untouched model on the same batch is subtracted, and the mean of the latter added
  (a control variate): what is left is what the steps did, without the luck of the batch.
- The sweep is repeated over several batch orders; the rule reads the mean of the curves. What it would read off each
  alone is reported as the spread.
"""

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch

from pipeline.files import write_text
from pipeline.learning.loop import Learner, Part, batch_loss, build_optimizer, take_step, train_batches
from pipeline.learning.lr_rules import (
    RULES,
    Curve,
    UnusableCurveError,
    check_learning,
    check_length,
    falls,
    mean_curve,
    smooth,
)
from pipeline.learning.schedule import epoch_batches, num_batches
from pipeline.seeds import permutation
from pipeline.settings import LrFind
from pipeline.workspace import Bar, Workspace

DIVERGED = 4.0
"""A running mean of the loss above this multiple of the untouched model's ends the sweep."""

RUNNING = 0.9
"""Weight of the past in that running mean."""

MEASURED = 32
"""Each step's loss is measured on so many images at least: with fewer, a single mistake would bend the curve."""

SHORT_SWEEP = 30
"""A sweep need not last longer than two epochs, but so many steps at least."""


@dataclass(frozen=True)
class Sweep:
    """The raw points of one repeat."""

    lrs: list[float]
    losses: list[float]
    references: list[float]
    """Loss of the untouched model on the same batches."""

    def curve(self, width: float) -> Curve:
        """The sweep without the luck of its batches; smoothed over `width` decades, without its outliers."""
        lrs, mean = np.array(self.lrs), float(np.mean(self.references)) if self.references else 0.0
        losses = np.array(self.losses) - np.array(self.references) + mean
        return Curve(lrs, losses, smooth(np.minimum(losses, DIVERGED * mean), lrs, width))


@dataclass(frozen=True)
class LrFound:
    """The chosen rate, and what speaks for it."""

    lr: float
    rule: str
    improved: bool
    """Whether the loss fell clearly at any rate; else `recipe` is a third of the highest rate that did no harm."""
    repeats: list[float]
    """The rule's answer for each usable repeat."""
    spread: float
    """Largest over smallest of `repeats`."""
    others: dict[str, float]
    """Each rule's answer on the same curve."""
    unusable: list[str]
    """Why the other repeats gave no answer."""


def find_lr(
    learner: Learner, settings: LrFind, workspace: Workspace, *, batch_size: int, momentum: float, sparing: bool
) -> tuple[LrFound, list[Curve]]:
    """Sweep the rate `settings.repeats` times and choose; the learner's model and torch's RNG are left as they were.

    `sparing` shortens sweeps where epochs are short: for images, whose steps cost time. Rates are the head's; all
    layer groups move together in their ratios. Finished repeats stay in scratch. Raises UnusableCurveError where fewer
    than half of the repeats give an answer.
    """
    before = {n: t.detach().clone() for n, t in learner.model.state_dict().items()}
    sweeps = []
    devices = [learner.device] if learner.device.type == "cuda" else []
    steps_per_epoch = num_batches(learner.train.num_samples, batch_size)
    num_steps = sweep_steps(settings.num_steps, steps_per_epoch) if sparing else settings.num_steps
    total = settings.repeats * num_steps
    with torch.random.fork_rng(devices=devices), workspace.progress(total) as bar:
        for repeat in range(settings.repeats):
            kept = workspace.scratch / f"sweep-{repeat}.json"
            if not kept.exists():
                seed = (workspace.seed, workspace.name, repeat)
                batches = _endless_batches(learner, max(batch_size, MEASURED), seed=seed)
                rates = np.geomspace(settings.start_lr, settings.end_lr, num_steps).tolist()
                sweep = _sweep(learner, rates, batches, batch_size=batch_size, momentum=momentum, seed=seed, bar=bar)
                learner.model.load_state_dict(before)
                write_text(kept, json.dumps(asdict(sweep)))
            sweeps.append(Sweep(**json.loads(kept.read_text())))
    curves = [s.curve(settings.smoothing) for s in sweeps]
    return choose(curves, settings.rule, num_classes=int(learner.train.targets.max()) + 1), curves


def sweep_steps(wanted: int, steps_per_epoch: int) -> int:
    """Steps of a sweep: at most two epochs' where epochs are short, so that finding costs less than training."""
    return min(wanted, max(SHORT_SWEEP, 2 * steps_per_epoch))


def choose(curves: list[Curve], rule: str, *, num_classes: int) -> LrFound:
    """Apply every rule to the mean of the usable curves; `rule`'s answer is chosen. Raises UnusableCurveError."""
    usable, repeats, unusable = [], [], []
    for curve in curves:
        try:
            check_length(curve)
            usable.append(curve)
            repeats.append(RULES[rule](curve))
        except UnusableCurveError as error:
            unusable.append(str(error))
    if len(usable) * 2 < len(curves) or not repeats:
        raise UnusableCurveError(f"{len(unusable)} of {len(curves)} sweeps give no rate: {unusable[0]}")
    mean = mean_curve(usable)
    check_learning(mean, num_classes)
    others = {name: answer(mean) for name, answer in RULES.items()}
    return LrFound(others[rule], rule, falls(mean), repeats, max(repeats) / min(repeats), others, unusable)


def _sweep(
    learner: Learner,
    rates: list[float],
    batches: Iterator[list[Part]],
    *,
    batch_size: int,
    momentum: float,
    seed: tuple[int | str, ...],
    bar: Bar,
) -> Sweep:
    """Step on the first `batch_size` images of each batch; the loss is that of all of them, before the step."""
    learner.set_mode()
    untouched = copy.deepcopy(learner.model)
    optimizer = build_optimizer(learner.groups, 1.0, momentum=momentum, weight_decay=0.0)
    factors = [g["lr"] for g in optimizer.param_groups]
    sweep = Sweep([], [], [])
    for step, lr in enumerate(rates):
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] = lr * factor
        batch = next(batches)
        sweep.lrs.append(lr)
        sweep.references.append(batch_loss(learner, untouched, batch, seed=(*seed, step)))
        if sum(len(targets) for _, targets in batch) > batch_size:
            sweep.losses.append(batch_loss(learner, learner.model, batch, seed=(*seed, step)))
            take_step(learner, optimizer, _first(batch, batch_size, learner.micro_batch_size), seed=(*seed, step))
        else:
            sweep.losses.append(take_step(learner, optimizer, batch, seed=(*seed, step)))
        if _has_diverged(sweep):
            bar.advance(len(rates) - step)
            return Sweep(sweep.lrs[:-1], sweep.losses[:-1], sweep.references[:-1])
        bar.advance(note=f"lr {lr:.1e}  loss {sweep.losses[-1]:.3f}")
    return sweep


def _first(batch: list[Part], count: int, micro_batch_size: int) -> list[Part]:
    """The first `count` images of a batch, in equal parts."""
    inputs, targets = (torch.cat(tensors)[:count] for tensors in zip(*batch, strict=True))
    return [(inputs[part], targets[part]) for part in epoch_batches(list(range(len(targets))), micro_batch_size)]


def _has_diverged(sweep: Sweep) -> bool:
    """Whether the loss is no number, or its running mean far above that of the untouched model on the same batches."""
    if not math.isfinite(sweep.losses[-1]):
        return True
    weights = RUNNING ** np.arange(len(sweep.losses))[::-1]
    excess = np.average(np.array(sweep.losses) - np.array(sweep.references), weights=weights)
    return bool(excess > (DIVERGED - 1) * np.mean(sweep.references))


def _endless_batches(learner: Learner, batch_size: int, *, seed: tuple[int | str, ...]) -> Iterator[list[Part]]:
    """Batches over as many epochs as the sweep needs."""
    epoch = 0
    while True:
        order = epoch_batches(permutation(learner.train.num_samples, *seed, "order", epoch), batch_size)
        yield from train_batches(learner, order, draw=epoch)
        epoch += 1
