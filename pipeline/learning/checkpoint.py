"""What a training run keeps in its scratch folder: its state, and the model at the end of each cycle."""

import dataclasses
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.files import rename
from pipeline.journal import Journal, Mark
from pipeline.kept import read_sealed, write_sealed

_CHECKPOINTS = ("checkpoint.pt", "checkpoint-before.pt")


@dataclass(frozen=True)
class CycleEnd:
    """What was measured when a cycle ended."""

    cycle: int
    """From 1; 0 is the state before the first step."""
    epoch: int
    """Epochs done."""
    step: int
    """Optimizer steps done."""
    train_loss: float
    """Mean loss of training images in evaluation mode, without augmentation."""
    valid_loss: float
    valid_accuracy: float


@dataclass
class TrainState:
    """Everything needed to resume training; sample order, augmentation and dropout follow from `step`."""

    step: int = 0
    epochs: int = 0
    """Those that are done, and measured."""
    cycle_ends: list[CycleEnd] = field(default_factory=list)
    """The state before the first step, then one per finished cycle."""
    model: dict[str, Tensor] = field(default_factory=dict)
    """At a cycle's end it is not kept again: it is that of the cycle's snapshot."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    journal: Mark = field(default_factory=Mark)


def save_checkpoint(state: TrainState, scratch: Path) -> None:
    """Keep `state`, and the one before; a kill at any moment leaves one of them.

    The snapshot of a cycle that has just ended must have been kept before.
    """
    newest, older = (scratch / name for name in _CHECKPOINTS)
    if newest.exists():
        rename(newest, older)
    values = {each.name: getattr(state, each.name) for each in dataclasses.fields(state)}
    plain = {
        "cycle_ends": [dataclasses.asdict(end) for end in state.cycle_ends],
        "journal": dataclasses.asdict(state.journal),
    }
    _save(values | plain | ({"model": {}} if _has_just_ended(state) else {}), newest)


def load_checkpoint(scratch: Path, journal: Journal) -> TrainState | None:
    """Return the newest state that is whole, with its snapshots and its part of the journal, which goes on from there.

    None if there is none. Loads tensors and plain values only, never code.
    """
    for name in _CHECKPOINTS:
        values = _load(scratch / name)
        if values is None:
            continue
        ends, mark = [CycleEnd(**c) for c in values["cycle_ends"]], Mark(**values["journal"])
        kept = [file for end in ends for file in _snapshot_files(scratch, end.cycle)]
        if all(read_sealed(file) is not None for file in kept) and journal.resume(mark):
            state = TrainState(**values | {"cycle_ends": ends, "journal": mark})
            return dataclasses.replace(state, model=state.model or load_snapshot(scratch, ends[-1].cycle))
    return None


def _has_just_ended(state: TrainState) -> bool:
    return bool(state.cycle_ends) and state.cycle_ends[-1].step == state.step


def save_snapshot(scratch: Path, cycle: int, state: dict[str, Tensor], *, valid: Tensor, train_plain: Tensor) -> None:
    """Keep the model's state at the end of `cycle`, and its logits [N, num_classes] for `valid` and `train_plain`."""
    weights, logits = _snapshot_files(scratch, cycle)
    _save(state, weights)
    _save({"valid": valid, "train_plain": train_plain}, logits)


def load_snapshot(scratch: Path, cycle: int) -> dict[str, Tensor]:
    """The model's state when `cycle` ended; 0 is before the first step."""
    state: dict[str, Tensor] = _require(_snapshot_files(scratch, cycle)[0])
    return state


def load_logits(scratch: Path, cycle: int) -> dict[str, Tensor]:
    """Logits [N, num_classes] of all samples of `valid` and of `train_plain` when `cycle` ended."""
    logits: dict[str, Tensor] = _require(_snapshot_files(scratch, cycle)[1])
    return logits


def load_losses(scratch: Path, cycle: int, targets: Tensor, split: str = "valid") -> NDArray[np.float64]:
    """The loss of each sample of `valid` or `train_plain`, with these targets [N], when `cycle` ended."""
    logits = load_logits(scratch, cycle)[split].double()
    losses: NDArray[np.float64] = F.cross_entropy(logits, targets, reduction="none").numpy()
    return losses


def _snapshot_files(scratch: Path, cycle: int) -> tuple[Path, Path]:
    return scratch / f"cycle-{cycle}.pt", scratch / f"logits-{cycle}.pt"


def _save(value: object, path: Path) -> None:
    content = io.BytesIO()
    torch.save(value, content)
    write_sealed(path, content.getbuffer())


def _load(path: Path) -> Any | None:
    content = read_sealed(path)
    return None if content is None else torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _require(path: Path) -> Any:
    value = _load(path)
    if value is None:
        raise OSError(f"{path} is missing or damaged: type the same command again, it makes it again")
    return value
