"""The learning-rate finder: a few sweeps over growing rates, and the rule that reads one rate off them.

Three things make the curve readable if batches are small, or the loss is low already:
- Batch noise is removed, and where samples are cheap, the loss is measured on more of them than the step is made on;
  see `lr_sweep`.
- The loss is smoothed over the rate.
- The sweep is repeated over several batch orders, and the rule reads the mean of the curves. The spread of its answers
  on the single curves is reported.

A sweep that gives no rate is no verdict on the data: it may have begun at a rate that does harm already. So the range
is widened and swept again, and if even that gives no rate, one that is known to be safe is taken.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from pipeline.kept import read_kept, write_kept
from pipeline.learning.loop import Learner
from pipeline.learning.lr_rules import (
    RULES,
    Curve,
    UnusableCurveError,
    check_learning,
    check_length,
    falls,
    mean_curve,
)
from pipeline.learning.lr_sweep import Sweep, SweepPlan, plan_sweeps, sweep
from pipeline.model import ranks
from pipeline.settings import LrFind
from pipeline.workspace import Workspace

ATTEMPTS = 3
"""Ranges that are swept at most: the one that was set, and two that are wider."""


@dataclass(frozen=True)
class LrChoice:
    """The chosen rate, and how certain it is."""

    lr: float
    rule: str
    improved: bool
    """Whether the loss fell clearly at any rate; if not, `recipe` is a third of the highest rate that did no harm."""
    repeats: list[float]
    """The rule's answer for each usable repeat."""
    spread: float | None
    """Largest over smallest of `repeats`; None if there is only one."""
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


def find_lr(
    learner: Learner,
    settings: LrFind,
    workspace: Workspace,
    *,
    batch_size: int,
    momentum: float,
    budget: int | None,
    safe_lr: float,
) -> tuple[LrChoice, list[Curve]]:
    """Sweep the rate several times, and choose one; the learner's model and torch's RNG are unchanged.

    Args:
        learner: trained for the sweeps, and then restored.
        settings: the range of rates, and the rule.
        workspace: finished repeats are kept in its scratch folder, for a killed run to resume from.
        batch_size: samples per optimizer step.
        momentum: of the optimizer.
        budget: all sweeps of a range cost no more than to train on that many samples once, for images, whose steps take
            time; see `plan_sweeps`.
        safe_lr: taken if no range gives a rate, unless the loss rises at the lowest rates: then it is the lowest tried,
            which leaves the model as it is.

    Returns the choice and the curve of each repeat. Rates are the head's; those of the other layer groups keep their
    ratios to it. Raises UnusableCurveError if no range gives a rate and `settings.on_unusable` is `fail`.
    """
    plan = plan_sweeps(settings, batch_size=batch_size, budget=budget)
    num_classes = int(learner.train.targets.max()) + 1
    failed: list[str] = []
    while True:
        curves = list(_sweep_repeatedly(learner, plan, settings, workspace, attempt=len(failed), momentum=momentum))
        try:
            choice = choose_lr(curves, settings.rule, num_classes=num_classes)
            return replace(choice, widened=failed, swept=plan.ends), curves
        except UnusableCurveError as error:
            failed.append(f"{plan}: {error}")
            if len(failed) == ATTEMPTS:
                if settings.on_unusable == "fail":
                    raise UnusableCurveError("no rate was found; swept " + "; ".join(failed), error.remedy) from None
                lr = plan.start_lr if error.remedy == "lower" else safe_lr
                return LrChoice(lr, settings.rule, False, [], None, {}, [], failed, plan.ends, usable=False), curves
            plan = plan.widened(error.remedy)
            workspace.say(f"no rate can be read: {error}. Next range: {plan}")


def _sweep_repeatedly(
    learner: Learner, plan: SweepPlan, settings: LrFind, workspace: Workspace, *, attempt: int, momentum: float
) -> Iterator[Curve]:
    """Sweep a range over several batch orders; no further when too many of the sweeps give no rate."""
    before = {n: t.detach().clone() for n, t in learner.model.state_dict().items()}
    devices = [learner.device] if learner.device.type == "cuda" else []
    num_unusable = 0
    with torch.random.fork_rng(devices=devices), workspace.progress(plan.repeats * plan.num_steps) as bar:
        for repeat in range(plan.repeats):
            file = workspace.scratch / f"sweep-{attempt}-{repeat}.json"
            if (kept := ranks.told(partial(read_kept, file))) is None:
                seed = (workspace.seed, workspace.name, repeat)
                made = sweep(learner, plan, momentum=momentum, seed=seed, bar=bar)
                learner.model.load_state_dict(before)
                kept = asdict(made)
                if ranks.is_first():
                    write_kept(file, kept)
            curve = Sweep(**kept).curve(settings.smoothing)
            yield curve
            num_unusable += isinstance(_answer(curve, settings.rule), UnusableCurveError)
            if 2 * num_unusable > plan.repeats:
                break


def _answer(curve: Curve, rule: str) -> float | UnusableCurveError:
    """The rule's answer on one curve, or why there is none."""
    try:
        check_length(curve)
        return RULES[rule](curve)
    except UnusableCurveError as error:
        return error


def choose_lr(curves: list[Curve], rule: str, *, num_classes: int) -> LrChoice:
    """Apply every rule to the mean of the usable curves, and choose the answer of `rule`. Raises UnusableCurveError."""
    answers = [_answer(curve, rule) for curve in curves]
    unusable = [answer for answer in answers if isinstance(answer, UnusableCurveError)]
    repeats = [answer for answer in answers if not isinstance(answer, UnusableCurveError)]
    if len(repeats) * 2 < len(curves) or not repeats:
        first = unusable[0]
        raise UnusableCurveError(f"{len(unusable)} of {len(curves)} sweeps give no rate: {first}", first.remedy)
    usable = zip(curves, answers, strict=True)
    mean = mean_curve([curve for curve, answer in usable if not isinstance(answer, UnusableCurveError)])
    check_learning(mean, num_classes)
    others = {name: answer(mean) for name, answer in RULES.items()}
    spread = max(repeats) / min(repeats) if len(repeats) > 1 else None
    reasons, swept = [str(error) for error in unusable], (float(mean.lrs[0]), float(mean.lrs[-1]))
    return LrChoice(others[rule], rule, falls(mean), repeats, spread, others, reasons, [], swept, usable=True)
