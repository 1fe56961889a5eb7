"""The one training loop. Heads on activations, heads through a frozen backbone and whole models all go through it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from pipeline.learning.checkpoint import CycleEnd, TrainState, load_checkpoint, save_checkpoint
from pipeline.learning.overfitting import has_stopped_improving
from pipeline.learning.schedule import Cycles, build_schedule, epoch_batches, num_batches
from pipeline.model.compute import computing_in, to_device
from pipeline.seeds import permutation, seed_torch
from pipeline.settings import Schedule
from pipeline.workspace import Workspace

Part = tuple[Tensor, Tensor]
"""Inputs [N, ...] and targets [N] that are computed at once: a batch, or a part of one."""


class BatchSource(Protocol):
    """Samples that can be drawn in any order: images, or activations."""

    num_samples: int
    targets: Tensor
    """[num_samples], by sample index."""

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[Part]:
        """Yield (inputs [N, ...], targets [N]) per list of sample indices; `draw` numbers random views."""
        ...


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a rate."""

    name: str
    parameters: list[nn.Parameter]
    lr_factor: float
    """Rate as a multiple of the head's."""


@dataclass(frozen=True)
class Computation:
    """A model, and how it computes."""

    model: nn.Module
    device: torch.device
    precision: str
    micro_batch_size: int
    """Samples that are computed at once, at most."""


@dataclass(frozen=True)
class Learner(Computation):
    """What is trained, and on what."""

    groups: list[ParameterGroup]
    train: BatchSource
    train_plain: BatchSource
    """Training samples without augmentation, to measure over-fitting on."""
    valid: BatchSource
    set_mode: Callable[[], None]
    """Puts the trained parts into training mode and the frozen ones into evaluation mode."""
    begin_cycle: Callable[[int], None] = lambda _: None
    """Opens the layer groups that the cycle (from 1) trains; all are open before."""
    class_weights: Tensor | None = None
    """[num_classes], of the training loss; None is 1 for all."""
    linear: bool = False
    """Whether the logits are linear in what is trained, as a head's are: means of weights predict means of logits."""


@dataclass(frozen=True)
class Plan:
    """How long, how fast and in which portions."""

    num_cycles: int
    cycle_len: int
    cycle_mult: int
    lr: float
    batch_size: int
    momentum: float
    weight_decay: float
    until_overfit: bool
    schedule: Schedule

    def cycles(self, num_samples: int) -> Cycles:
        """The cycles in steps."""
        return Cycles(self.num_cycles, self.cycle_len, self.cycle_mult, num_batches(num_samples, self.batch_size))


@dataclass(frozen=True)
class Trained:
    """How far training went."""

    cycles: Cycles
    ends: list[CycleEnd]
    """The state before the first step, then one per finished cycle."""


def train(learner: Learner, plan: Plan, workspace: Workspace) -> Trained:
    """Train for the planned cycles, or until over-fitting; the model ends as the last of them left it.

    The state before the first step counts as cycle 0. Points are journalled at the number of the last step done, from
    0; at -1 stands what was measured before the first.

    Every `checkpoint_s` seconds and at every cycle end the state goes to the workspace's scratch, from where a killed run
    goes on and ends in the same bytes. Snapshots of the cycles are left there as `cycle-<k>.pt`, and what they predict
    as `logits-<k>.pt`. Raises ValueError where the loss is no longer a number.
    """
    stage, seed, journal, scratch = workspace.name, workspace.seed, workspace.journal, workspace.scratch
    cycles = plan.cycles(learner.train.num_samples)
    optimizer = build_optimizer(learner.groups, plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay)
    scheduler = build_schedule(plan.schedule, optimizer, cycles)
    state = load_checkpoint(scratch / "checkpoint.pt") or TrainState()
    if state.cycle_ends:
        learner.model.load_state_dict(state.model)
        optimizer.load_state_dict(state.optimizer)
        scheduler.load_state_dict(state.scheduler)
    journal.rewind(state.journal_length)

    def keep() -> float:
        state.model, state.optimizer = learner.model.state_dict(), optimizer.state_dict()
        state.scheduler, state.journal_length = scheduler.state_dict(), journal.tell()
        save_checkpoint(state, scratch / "checkpoint.pt")
        return time.monotonic()

    def measure(epochs_done: int) -> None:
        valid, targets = predict(learner, learner.valid)
        valid_loss, accuracy = score(valid, targets)
        journal.points(state.step - 1, valid_loss=valid_loss, valid_accuracy=accuracy)
        if epochs_done in (0, *cycles.ends):
            train_plain, targets = predict(learner, learner.train_plain)
            train_loss, _ = score(train_plain, targets)
            journal.points(state.step - 1, train_plain_loss=train_loss)
            end = CycleEnd(len(state.cycle_ends), epochs_done, state.step, train_loss, valid_loss, accuracy)
            state.cycle_ends.append(end)
            torch.save(learner.model.state_dict(), scratch / f"cycle-{end.cycle}.pt")
            torch.save({"valid": valid, "train_plain": train_plain}, scratch / f"logits-{end.cycle}.pt")

    last_kept = time.monotonic()
    if not state.cycle_ends:
        measure(0)
        last_kept = keep()
    with workspace.progress(cycles.num_steps, start=state.step) as bar:
        for epoch in range(state.step // cycles.steps_per_epoch, cycles.num_epochs):
            if epoch in cycles.ends and plan.until_overfit and has_stopped_improving(state.cycle_ends):
                break
            learner.begin_cycle(1 + sum(end <= epoch for end in cycles.ends))
            order = epoch_batches(permutation(learner.train.num_samples, seed, stage, epoch), plan.batch_size)
            done = state.step - epoch * cycles.steps_per_epoch
            for batch in train_batches(learner, order[done:], draw=epoch):
                loss = take_step(learner, optimizer, batch, seed=(seed, stage, "step", state.step))
                if not math.isfinite(loss):
                    raise ValueError(f"the loss became {loss} at step {state.step}: set {stage}.lr below {plan.lr:g}")
                journal.points(state.step, train_loss=loss, lr=optimizer.param_groups[-1]["lr"])
                scheduler.step()
                state.step += 1
                bar.advance(note=f"loss {loss:.4f}")
                if state.step % cycles.steps_per_epoch and time.monotonic() - last_kept > workspace.checkpoint_s:
                    last_kept = keep()
            measure(epoch + 1)
            if epoch + 1 in cycles.ends or time.monotonic() - last_kept > workspace.checkpoint_s:
                last_kept = keep()
    return Trained(cycles, state.cycle_ends)


def load_snapshot(scratch: Path, cycle: int) -> dict[str, Tensor]:
    """The model's state when `cycle` ended; 0 is before the first step."""
    state: dict[str, Tensor] = torch.load(scratch / f"cycle-{cycle}.pt", map_location="cpu", weights_only=True)
    return state


def load_logits(scratch: Path, cycle: int) -> dict[str, Tensor]:
    """Logits [N, num_classes] of all samples of `valid` and of `train_plain` when `cycle` ended."""
    logits: dict[str, Tensor] = torch.load(scratch / f"logits-{cycle}.pt", map_location="cpu", weights_only=True)
    return logits


def build_optimizer(groups: Sequence[ParameterGroup], lr: float, *, momentum: float, weight_decay: float) -> SGD:
    """Plain SGD with momentum; each group at its own multiple of `lr`."""
    params = [{"params": g.parameters, "lr": lr * g.lr_factor} for g in groups]
    return SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay)


def take_step(learner: Learner, optimizer: SGD, batch: Sequence[Part], *, seed: tuple[int | str, ...]) -> float:
    """One update from the parts of one batch; returns the batch's mean loss before it. Dropout follows from `seed`.

    Gradients of the parts add up to those of the whole batch's mean loss.
    """
    learner.set_mode()
    optimizer.zero_grad(set_to_none=True)
    loss = batch_loss(learner, learner.model, batch, seed=seed, backward=True)
    optimizer.step()
    return loss


def batch_loss(
    learner: Learner,
    model: nn.Module,
    batch: Sequence[Part],
    *,
    seed: tuple[int | str, ...],
    backward: bool = False,
) -> float:
    """Mean loss of a batch under `model`, in the mode that it is in; its gradients are left there if wanted."""
    size = sum(len(targets) for _, targets in batch)
    total = 0.0
    with torch.set_grad_enabled(backward):
        for i, (inputs, targets) in enumerate(batch):
            seed_torch(*seed, i)
            logits = _logits(learner, model, inputs)
            weight = learner.class_weights
            loss = F.cross_entropy(logits, targets.to(learner.device), weight=weight, reduction="sum") / size
            if backward:
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    return total


def evaluate(learner: Computation, source: BatchSource) -> tuple[float, float]:
    """Mean loss and accuracy over all samples of `source`, in evaluation mode."""
    return score(*predict(learner, source))


def score(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean loss and accuracy of logits [N, num_classes] and targets [N]."""
    accuracy = (logits.argmax(1) == targets).double().mean().item()
    return F.cross_entropy(logits.double(), targets).item(), accuracy


@torch.no_grad()
def predict(learner: Computation, source: BatchSource, *, draw: int = 0) -> tuple[Tensor, Tensor]:
    """Logits [N, num_classes] and targets [N] of all samples in order, on the CPU."""
    learner.model.eval()
    order = epoch_batches(list(range(source.num_samples)), learner.micro_batch_size)
    outputs = [(_logits(learner, learner.model, x).cpu(), y) for x, y in source.batches(order, draw=draw)]
    return torch.cat([logits for logits, _ in outputs]), torch.cat([y for _, y in outputs])


def first_images(source: BatchSource, count: int) -> Part:
    """The first `count` samples of `source`, or all that it has."""
    return next(iter(source.batches([list(range(min(count, source.num_samples)))], draw=0)))


def train_batches(learner: Learner, order: list[list[int]], *, draw: int) -> Iterator[list[Part]]:
    """The training batches of `order`, each in equal parts of `micro_batch_size` at most."""
    cut = [epoch_batches(batch, learner.micro_batch_size) for batch in order]
    parts = iter(learner.train.batches([part for batch in cut for part in batch], draw=draw))
    for batch in cut:
        yield [next(parts) for _ in batch]


def _logits(learner: Computation, model: nn.Module, inputs: Tensor) -> Tensor:
    with computing_in(learner.precision, learner.device):
        images = inputs.dim() == 4
        logits: Tensor = model(to_device(inputs, learner.device) if images else inputs.to(learner.device))
    return logits.float()
