"""The one training loop: of heads on activations, of heads through a frozen backbone, and of whole models."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import SGD, AdamW, Optimizer

from pipeline.learning.checkpoint import CycleEnd, TrainState, load_checkpoint, save_checkpoint, save_snapshot
from pipeline.learning.overfitting import has_stopped_improving
from pipeline.learning.schedule import Cycles, build_schedule
from pipeline.learning.soundness import Guard, NotFiniteError
from pipeline.learning.sources import Batch, BatchSource, train_batches
from pipeline.model import ranks
from pipeline.model.batches import even_batches, num_batches
from pipeline.model.compute import Computation, forward, predict, score
from pipeline.model.dropout import placed
from pipeline.model.finite import all_finite
from pipeline.model.memory import fitting
from pipeline.seeds import permutation, seed_torch
from pipeline.settings import OptimizerName, Schedule
from pipeline.stopping import Stopped
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    name: str
    parameters: list[nn.Parameter]
    lr_factor: float
    """Their rate, as a multiple of the head's."""


@dataclass(frozen=True)
class Learner(Computation):
    """A model with what it is trained and measured on."""

    groups: list[ParameterGroup]
    train: BatchSource
    train_plain: BatchSource
    """Training samples without augmentation, to measure over-fitting with."""
    valid: BatchSource
    set_mode: Callable[[], None]
    """Puts the trained parts into training mode and the frozen ones into evaluation mode."""
    begin_cycle: Callable[[int], None] = lambda _: None
    """Unfreezes the layer groups that the cycle (from 1) trains; before that, all are unfrozen."""
    class_weights: Tensor | None = None
    """[num_classes], for the training loss; None means 1 for all."""
    linear: bool = False
    """Whether the logits are linear in the trained weights, as a head's are: mean weights then predict mean logits."""
    optimizer: OptimizerName = "sgd"
    unread: int = 1
    """Steps whose losses may wait unread on the device, so that it never waits for this process."""
    start: Mapping[str, Tensor] = field(default_factory=dict)
    """What the model answers before the first step, where that is known: logits [N, num_classes] of `train` (that is of
    `train_plain`) and of `valid`. Without them it is measured."""


@dataclass(frozen=True)
class Plan:
    """How long to train, at which rates and in which batches."""

    num_cycles: int
    cycle_len: int
    cycle_mult: int
    lr: float
    batch_size: int
    momentum: float
    weight_decay: float
    until_overfit: bool
    schedule: Schedule
    is_lr_found: bool = False
    """Whether `lr` is the finder's: then training that diverges begins again at a lower one."""
    lr_setting: str | None = None
    """The setting that gives `lr`, for advice; None means the stage's own `lr`."""

    def cycles(self, num_samples: int) -> Cycles:
        """The cycles in steps."""
        return Cycles(self.num_cycles, self.cycle_len, self.cycle_mult, num_batches(num_samples, self.batch_size))


@dataclass(frozen=True)
class TrainingRun:
    """How far training went."""

    cycles: Cycles
    ends: list[CycleEnd]
    """The state before the first step, then one per finished cycle."""


def fit(learner: Learner, plan: Plan, workspace: Workspace) -> TrainingRun:
    """Train for the planned cycles, or until over-fitting; the model keeps the weights of the last step.

    The state before the first step counts as cycle 0. Points are journalled under the number of the last step done,
    from 0; what is measured before the first step is under -1.

    Every `checkpoint_s` seconds, at every cycle end and where the run is asked to stop, the state is saved in the
    workspace's scratch folder. A killed run resumes from there and ends with the same bytes. A snapshot of each cycle
    is kept there as `cycle-<k>.pt`, and its logits as `logits-<k>.pt`.

    Several ranks train together, each on its parts of every batch; all have the same weights after each step.

    Nothing that is NaN or infinite is kept: raises DivergedError if the rate may be to blame, else NumbersError.
    """
    stage, seed, journal, scratch = workspace.name, workspace.seed, workspace.journal, workspace.scratch
    cycles = plan.cycles(learner.train.num_samples)
    optimizer = build_optimizer(
        learner.groups,
        plan.lr,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        name=learner.optimizer,
        fused=learner.unread > 1,
    )
    scheduler = build_schedule(plan.schedule, optimizer, cycles)
    state = ranks.told(lambda: load_checkpoint(scratch, journal)) or TrainState()
    if state.cycle_ends:
        learner.model.load_state_dict(state.model)
        optimizer.load_state_dict(state.optimizer)
        scheduler.load_state_dict(state.scheduler)

    lower = f"set {plan.lr_setting or f'{stage}.lr'} below {plan.lr:g}"
    guard = Guard(learner.model, optimizer, advice=lower)
    unread: list[_Unread] = []

    def read_steps() -> float:
        """Journal the steps that were not read yet; returns the loss of the last one."""
        loss = math.nan
        for each in unread:
            try:
                loss = each.step.read()
            except NotFiniteError as error:
                names = [learner.train.name(i, draw=each.epoch) for i in each.batch.own(each.samples)]
                raise guard.explain(error, each.number, names, each.batch, lr=each.lr) from None
            journal.points(each.number, train_loss=loss, lr=each.lr)
        unread.clear()
        return loss

    def save() -> float:
        read_steps()
        guard.check_weights(state.step)
        if not ranks.is_first():
            return time.monotonic()
        state.model, state.optimizer = learner.model.state_dict(), optimizer.state_dict()
        state.scheduler, state.journal = scheduler.state_dict(), journal.mark()
        save_checkpoint(state, scratch)
        return time.monotonic()

    def ask(source: BatchSource, split: str) -> tuple[Tensor, float, float]:
        logits = None if state.step else learner.start.get(split)
        if logits is None:
            logits = answers(learner, source)
        guard.check_answers(logits, source, split, state.step)
        return logits, *score(logits, source.targets)

    def measure(epochs_done: int) -> None:
        read_steps()
        guard.check_weights(state.step)
        ranks.require_equal(learner.model)
        valid, valid_loss, accuracy = ask(learner.valid, "valid")
        is_end = epochs_done in (0, *cycles.ends)
        train_plain, train_loss, _ = ask(learner.train_plain, "train") if is_end else (valid, math.nan, math.nan)
        journal.points(state.step - 1, valid_loss=valid_loss, valid_accuracy=accuracy)  # no Stopped from here on
        if is_end:
            journal.points(state.step - 1, train_plain_loss=train_loss)
            end = CycleEnd(len(state.cycle_ends), epochs_done, state.step, train_loss, valid_loss, accuracy)
            if ranks.is_first():
                save_snapshot(scratch, end.cycle, learner.model.state_dict(), valid=valid, train_plain=train_plain)
            state.cycle_ends.append(end)
        state.epochs = epochs_done

    last_saved = time.monotonic()
    if not state.cycle_ends:
        measure(0)
        last_saved = save()
    note = ""
    with _saved_when_stopped(state, cycles, save), workspace.progress(cycles.num_steps, start=state.step) as bar:
        for epoch in range(state.epochs, cycles.num_epochs):
            if epoch in cycles.ends and plan.until_overfit and has_stopped_improving(state.cycle_ends):
                break
            learner.begin_cycle(1 + sum(end <= epoch for end in cycles.ends))
            order = even_batches(permutation(learner.train.num_samples, seed, stage, epoch), plan.batch_size)
            done = state.step - epoch * cycles.steps_per_epoch
            batches = train_batches(learner.train, order[done:], micro_batch_size=learner.micro_batch_size, draw=epoch)
            for samples, batch in zip(order[done:], batches, strict=True):
                lr = optimizer.param_groups[-1]["lr"]
                made = take_step(learner, optimizer, batch, seed=(seed, stage, "step", state.step))
                unread.append(_Unread(state.step, made, lr, epoch, samples, batch))
                if len(unread) >= learner.unread:
                    note = f"loss {read_steps():.4f}"
                scheduler.step()
                state.step += 1
                ranks.agree_to_stop()
                bar.advance(note=note)
                if state.step % cycles.steps_per_epoch and time.monotonic() - last_saved > workspace.checkpoint_s:
                    last_saved = save()
            measure(epoch + 1)
            if epoch + 1 in cycles.ends or time.monotonic() - last_saved > workspace.checkpoint_s:
                last_saved = save()
    return TrainingRun(cycles, state.cycle_ends)


@contextmanager
def _saved_when_stopped(state: TrainState, cycles: Cycles, save: Callable[[], object]) -> Iterator[None]:
    """Save the state if the run is asked to stop within the block, where Stopped is raised between steps only."""
    try:
        yield
    except Stopped as stopped:
        save()
        stopped.kept = f"step {state.step} of {cycles.num_steps}"
        raise


def build_optimizer(
    groups: Sequence[ParameterGroup],
    lr: float,
    *,
    momentum: float,
    weight_decay: float,
    name: OptimizerName = "sgd",
    fused: bool = False,
) -> Optimizer:
    """Build SGD with momentum, or AdamW with betas `momentum` and 0.999; a group's rate is its own multiple of `lr`.

    `fused` updates all weights in one kernel, which can leave an update out: for devices that compute on their own.
    Each group becomes one or two of the optimizer's, in order: what decays, and what does not. The last one has the
    head's rate.
    """
    params = [
        {"params": part, "lr": lr * group.lr_factor, "weight_decay": decay}
        for group in groups
        for part, decay in zip(split_by_decay(group.parameters), (weight_decay, 0.0), strict=True)
        if part
    ]
    if name == "adamw":
        return AdamW(params, lr=lr, betas=(momentum, 0.999), fused=fused or None)
    return SGD(params, lr=lr, momentum=momentum, fused=fused or None)


def split_by_decay(parameters: Sequence[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split into matrices and kernels, which weight decay applies to, and vectors, which it does not.

    Vectors are biases, the scales of norms, class tokens, and the layer scales of ConvNeXt, whatever axes of length 1
    they have.
    """
    vectors = [sum(length > 1 for length in p.shape) <= 1 for p in parameters]
    pairs = list(zip(parameters, vectors, strict=True))
    return [p for p, is_vector in pairs if not is_vector], [p for p, is_vector in pairs if is_vector]


@dataclass(frozen=True)
class Step:
    """What came of a step: tensors on the device, so that nothing waits for it until they are read."""

    loss: Tensor
    """The batch's mean loss before the update."""
    is_sound: Tensor
    """Whether no gradient is NaN or infinite."""

    def read(self) -> float:
        """The loss. Raises NotFiniteError if it, or a gradient, is NaN or infinite: then there was no update."""
        loss = self.loss.item()
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss became {loss}")
        if not self.is_sound.item():
            raise NotFiniteError("the gradients became NaN or infinite")
        return loss


@dataclass(frozen=True)
class _Unread:
    """A step that is not journalled yet, and what an error would tell of it."""

    number: int
    step: Step
    lr: float
    epoch: int
    samples: list[int]
    """Of the whole batch."""
    batch: Batch


def answers(learner: Learner, source: BatchSource) -> Tensor:
    """Logits [N, num_classes] of all samples of `source`, in order, on the CPU: each rank predicts its batches."""
    own = ranks.share(even_batches(list(range(source.num_samples)), learner.micro_batch_size))
    found = ranks.gathered(lambda: predict(learner, source.batches(own, draw=0))[0] if own else None)
    return torch.cat([logits for logits in found if logits is not None])


def take_step(learner: Learner, optimizer: Optimizer, batch: Batch, *, seed: tuple[int | str, ...]) -> Step:
    """Make one update from the parts of a batch, unless the loss or a gradient is NaN or infinite; see `Step.read`.

    Gradients are accumulated over the parts of all ranks, to those of the whole batch's mean loss. `seed` decides
    dropout. Where steps may wait unread, nothing here waits for the device: the optimizer's kernel itself leaves the
    update out, and those of all later steps.
    """
    learner.set_mode()
    optimizer.zero_grad(set_to_none=True)
    loss = batch_loss(learner, learner.model, batch, seed=seed, backward=True)
    ranks.sum_gradients([p for group in optimizer.param_groups for p in group["params"] if p.requires_grad])
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if learner.unread > 1:
        step = Step(loss, get_total_norm(gradients, norm_type=math.inf).isfinite())
        broken = ~(step.is_sound & loss.isfinite())
        optimizer.found_inf = broken.float().maximum(getattr(optimizer, "found_inf", torch.zeros_like(loss)))  # type: ignore[attr-defined]
        optimizer.step()
    else:
        step = Step(loss, torch.tensor(all_finite(gradients)))
        if step.is_sound and loss.isfinite():
            optimizer.step()
    return step


def batch_loss(
    learner: Learner, model: nn.Module, batch: Batch, *, seed: tuple[int | str, ...], backward: bool = False
) -> Tensor:
    """Mean loss of a batch under `model`, in its present mode; with `backward`, gradients are added to its weights.

    Those are of this rank's parts; the loss is that of all.
    """
    total = torch.zeros((), device=learner.device)
    with torch.set_grad_enabled(backward):
        for place, (inputs, targets) in batch.placed():
            seed_torch(*seed, 0)  # every part draws the noise of the whole batch
            with placed(place, batch.size):
                logits = forward(learner, inputs, model)
            targets = targets.to(learner.device, non_blocking=True)
            loss = F.cross_entropy(logits, targets, weight=learner.class_weights, reduction="sum") / batch.size
            if backward:
                with fitting(learner.device, len(targets)):
                    loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
    return ranks.summed(total)
