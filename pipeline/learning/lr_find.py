"""The learning-rate finder: train for a few steps at a rate that grows from step to step, and watch the loss.

Source: L. N. Smith 2015, arXiv:1506.01186, section 3.3; with exponential growth, as in fastai. Three things make
the curve readable if batches are small, or the loss is low already:
- With small batches, the loss is measured on more images than the step is made on.
- Batch noise is removed with a control variate: from each batch's loss the loss of the unchanged model on the same
  batch is subtracted, and the mean of the latter is added. What is left is the effect of the steps.
- The sweep is repeated over several batch orders, and the rule reads the mean of the curves. The spread of its answers
  on the single curves is reported.

A sweep that gives no rate is no verdict on the data: it may have begun at a rate that does harm already. So the range
is widened and swept again, and if even that gives no rate, one that is known to be safe is taken.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from pipeline.files import read_json, write_json
from pipeline.learning.loop import Learner, batch_loss, build_optimizer, take_step
from pipeline.learning.lr_rules import (
    RULES,
    Curve,
    Remedy,
    UnusableCurveError,
    check_learning,
    check_length,
    falls,
    mean_curve,
    smooth,
)
from pipeline.learning.sources import MicroBatch, train_batches
from pipeline.model.batches import even_batches, num_batches
from pipeline.seeds import permutation
from pipeline.settings import LrFind
from pipeline.workspace import Bar, Workspace

DIVERGED = 4.0
"""The sweep ends if the running mean of the loss exceeds this multiple of the unchanged model's."""

RUNNING = 0.9
"""Weight of earlier steps in that running mean."""

MEASURED = 32
"""Each step's loss is measured on at least this many images: with fewer, a single mistake would bend the curve."""

ATTEMPTS = 3
"""Ranges that are swept at most: the one that was set, and two that are wider."""

SHORT_SWEEP = 30
"""A sweep that is capped at two epochs still takes at least this many steps."""


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
        return Curve(lrs, losses, smooth(np.minimum(losses, DIVERGED * mean), lrs, width))


@dataclass(frozen=True)
class LrChoice:
    """The chosen rate, and how certain it is."""

    lr: float
    rule: str
    improved: bool
    """Whether the loss fell clearly at any rate; if not, `recipe` is a third of the highest rate that did no harm."""
    repeats: list[float]
    """The rule's answer for each usable repeat."""
    spread: float
    """Largest over smallest of `repeats`."""
    others: dict[str, float]
    """Each rule's answer on the same curve."""
    unusable: list[str]
    """Why the other repeats gave no answer."""
    widened: list[str]
    """The ranges that gave no rate, and why, before the one that did; empty for the range that was set."""
    swept: tuple[float, float]
    """The lowest and the highest rate of the range that was swept last."""
    usable: bool
    """Whether the rate was read off a curve; if not, it is one that is known to be safe."""


@dataclass(frozen=True)
class SweepRange:
    """From which rate to which, and in how many steps."""

    start_lr: float
    end_lr: float
    num_steps: int

    def __str__(self) -> str:
        return f"{self.start_lr:.3g} to {self.end_lr:.3g} in {self.num_steps} steps"

    @property
    def ends(self) -> tuple[float, float]:
        return self.start_lr, self.end_lr

    def rates(self) -> list[float]:
        """The rate of each step, growing by the same factor."""
        rates: list[float] = np.geomspace(self.start_lr, self.end_lr, self.num_steps).tolist()
        return rates

    def widened(self, remedy: Remedy) -> "SweepRange":
        """The range to sweep next. Rates that do harm are not swept again, for each step takes time."""
        match remedy:
            case "lower":
                return SweepRange(self.start_lr / 1000, 10 * self.start_lr, self.num_steps)
            case "higher":
                return SweepRange(self.start_lr, 100 * self.end_lr, self.num_steps + self.num_steps // 2)
            case "longer":
                return SweepRange(self.start_lr, self.end_lr, 2 * self.num_steps)


def find_lr(
    learner: Learner,
    settings: LrFind,
    workspace: Workspace,
    *,
    batch_size: int,
    momentum: float,
    cap_at_two_epochs: bool,
    safe_lr: float,
) -> tuple[LrChoice, list[Curve]]:
    """Sweep the rate `settings.repeats` times, and choose one; the learner's model and torch's RNG are unchanged.

    Args:
        learner: trained for the sweeps, and then restored.
        settings: the range of rates, and the rule.
        workspace: finished repeats are kept in its scratch folder, for a killed run to resume from.
        batch_size: images per optimizer step.
        momentum: of the optimizer.
        cap_at_two_epochs: shorten sweeps if epochs are short: for images, whose steps take time.
        safe_lr: taken if no range gives a rate, unless the loss rises at the lowest rates: then it is the lowest tried,
            which leaves the model as it is.

    Returns the choice and the curve of each repeat. Rates are the head's; those of the other layer groups keep their
    ratios to it. Raises UnusableCurveError if no range gives a rate and `settings.on_unusable` is `fail`.
    """
    steps_per_epoch = num_batches(learner.train.num_samples, batch_size)
    num_steps = sweep_steps(settings.num_steps, steps_per_epoch) if cap_at_two_epochs else settings.num_steps
    swept, num_classes = SweepRange(settings.start_lr, settings.end_lr, num_steps), int(learner.train.targets.max()) + 1
    failed: list[str] = []
    while True:
        sweeps = _sweep_repeatedly(
            learner, swept, settings, workspace, attempt=len(failed), batch_size=batch_size, momentum=momentum
        )
        curves = [s.curve(settings.smoothing) for s in sweeps]
        try:
            choice = choose_lr(curves, settings.rule, num_classes=num_classes)
            return replace(choice, widened=failed, swept=swept.ends), curves
        except UnusableCurveError as error:
            failed.append(f"{swept}: {error}")
            if len(failed) == ATTEMPTS:
                if settings.on_unusable == "fail":
                    raise UnusableCurveError("no rate was found; swept " + "; ".join(failed), error.remedy) from None
                lr = swept.start_lr if error.remedy == "lower" else safe_lr
                return LrChoice(lr, settings.rule, False, [], 1.0, {}, [], failed, swept.ends, usable=False), curves
            swept = swept.widened(error.remedy)
            workspace.say(f"no rate can be read: {error}. Next range: {swept}")


def _sweep_repeatedly(
    learner: Learner,
    swept: SweepRange,
    settings: LrFind,
    workspace: Workspace,
    *,
    attempt: int,
    batch_size: int,
    momentum: float,
) -> list[Sweep]:
    """Sweep a range over several batch orders; no further when too many of the sweeps give no rate."""
    before = {n: t.detach().clone() for n, t in learner.model.state_dict().items()}
    sweeps: list[Sweep] = []
    devices = [learner.device] if learner.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        workspace.progress(settings.repeats * swept.num_steps) as bar,
    ):
        for repeat in range(settings.repeats):
            file = workspace.scratch / f"sweep-{attempt}-{repeat}.json"
            if not file.exists():
                seed = (workspace.seed, workspace.name, repeat)
                batches = _endless_batches(learner, max(batch_size, MEASURED), seed=seed)
                sweep = _sweep(
                    learner, swept.rates(), batches, batch_size=batch_size, momentum=momentum, seed=seed, bar=bar
                )
                learner.model.load_state_dict(before)
                write_json(file, asdict(sweep))
            sweeps.append(Sweep(**read_json(file)))
            unusable = [s for s in sweeps if not _gives_rate(s.curve(settings.smoothing), settings.rule)]
            if 2 * len(unusable) > settings.repeats:
                break
    return sweeps


def _gives_rate(curve: Curve, rule: str) -> bool:
    try:
        check_length(curve)
        RULES[rule](curve)
    except UnusableCurveError:
        return False
    return True


def sweep_steps(wanted: int, steps_per_epoch: int) -> int:
    """Steps of a sweep: no more than two epochs have if epochs are short, so that finding costs less than training."""
    return min(wanted, max(SHORT_SWEEP, 2 * steps_per_epoch))


def choose_lr(curves: list[Curve], rule: str, *, num_classes: int) -> LrChoice:
    """Apply every rule to the mean of the usable curves, and choose the answer of `rule`. Raises UnusableCurveError."""
    usable, repeats, unusable = [], [], []
    for curve in curves:
        try:
            check_length(curve)
            usable.append(curve)
            repeats.append(RULES[rule](curve))
        except UnusableCurveError as error:
            unusable.append(error)
    if len(usable) * 2 < len(curves) or not repeats:
        first = unusable[0]
        raise UnusableCurveError(f"{len(unusable)} of {len(curves)} sweeps give no rate: {first}", first.remedy)
    mean = mean_curve(usable)
    check_learning(mean, num_classes)
    others = {name: answer(mean) for name, answer in RULES.items()}
    reasons, spread = [str(error) for error in unusable], max(repeats) / min(repeats)
    ends = float(mean.lrs[0]), float(mean.lrs[-1])
    return LrChoice(others[rule], rule, falls(mean), repeats, spread, others, reasons, [], ends, usable=True)


def _sweep(
    learner: Learner,
    rates: list[float],
    batches: Iterator[list[MicroBatch]],
    *,
    batch_size: int,
    momentum: float,
    seed: tuple[int | str, ...],
    bar: Bar,
) -> Sweep:
    """Step on the first `batch_size` images of each batch; its loss is that of all its images, before the step."""
    learner.set_mode()
    unchanged = copy.deepcopy(learner.model)
    optimizer = build_optimizer(learner.groups, 1.0, momentum=momentum, weight_decay=0.0, name=learner.optimizer)
    factors = [g["lr"] for g in optimizer.param_groups]
    sweep = Sweep([], [], [])
    for step, lr in enumerate(rates):
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] = lr * factor
        batch = next(batches)
        sweep.lrs.append(lr)
        sweep.references.append(batch_loss(learner, unchanged, batch, seed=(*seed, step)))
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


def _first(batch: list[MicroBatch], count: int, micro_batch_size: int) -> list[MicroBatch]:
    """The first `count` images of a batch, cut evenly into parts."""
    inputs, targets = (torch.cat(tensors)[:count] for tensors in zip(*batch, strict=True))
    return [(inputs[part], targets[part]) for part in even_batches(list(range(len(targets))), micro_batch_size)]


def _has_diverged(sweep: Sweep) -> bool:
    """Whether the loss is NaN or infinite, or its running mean far above the unchanged model's on the same batches."""
    if not math.isfinite(sweep.losses[-1]):
        return True
    weights = RUNNING ** np.arange(len(sweep.losses))[::-1]
    excess = np.average(np.array(sweep.losses) - np.array(sweep.references), weights=weights)
    return bool(excess > (DIVERGED - 1) * np.mean(sweep.references))


def _endless_batches(learner: Learner, batch_size: int, *, seed: tuple[int | str, ...]) -> Iterator[list[MicroBatch]]:
    """Batches over as many epochs as the sweep needs."""
    epoch = 0
    while True:
        order = even_batches(permutation(learner.train.num_samples, *seed, "order", epoch), batch_size)
        yield from train_batches(learner.train, order, micro_batch_size=learner.micro_batch_size, draw=epoch)
        epoch += 1
