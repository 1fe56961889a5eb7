"""What a training run keeps in its scratch folder: its state, and the model at the end of each cycle."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.files import atomic_file


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
    cycle_ends: list[CycleEnd] = field(default_factory=list)
    """The state before the first step, then one per finished cycle."""
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    journal_length: int = 0


def save_checkpoint(state: TrainState, path: Path) -> None:
    """Write `state`; a kill at any moment leaves the old checkpoint or the new one."""
    _save(dataclasses.asdict(state), path)


def load_checkpoint(path: Path) -> TrainState | None:
    """Read the checkpoint; None if there is none. Loads tensors and plain values only, never code."""
    if not path.exists():
        return None
    values = _load(path)
    values["cycle_ends"] = [CycleEnd(**c) for c in values["cycle_ends"]]
    return TrainState(**values)


def save_snapshot(scratch: Path, cycle: int, state: dict[str, Tensor], *, valid: Tensor, train_plain: Tensor) -> None:
    """Keep the model's state at the end of `cycle`, and its logits [N, num_classes] for `valid` and `train_plain`."""
    _save(state, scratch / f"cycle-{cycle}.pt")
    _save({"valid": valid, "train_plain": train_plain}, scratch / f"logits-{cycle}.pt")


def load_snapshot(scratch: Path, cycle: int) -> dict[str, Tensor]:
    """The model's state when `cycle` ended; 0 is before the first step."""
    state: dict[str, Tensor] = _load(scratch / f"cycle-{cycle}.pt")
    return state


def load_logits(scratch: Path, cycle: int) -> dict[str, Tensor]:
    """Logits [N, num_classes] of all samples of `valid` and of `train_plain` when `cycle` ended."""
    logits: dict[str, Tensor] = _load(scratch / f"logits-{cycle}.pt")
    return logits


def load_losses(scratch: Path, cycle: int, targets: Tensor) -> NDArray[np.float64]:
    """The loss of each sample of `valid`, with these targets [N], when `cycle` ended."""
    logits = load_logits(scratch, cycle)["valid"].double()
    losses: NDArray[np.float64] = F.cross_entropy(logits, targets, reduction="none").numpy()
    return losses


def _save(value: object, path: Path) -> None:
    with atomic_file(path) as file:
        torch.save(value, file)


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
