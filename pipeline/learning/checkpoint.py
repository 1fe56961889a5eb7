"""The state of a training run, written whole and read back whole."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
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
    """Everything that training goes on from; sample order, augmentation and dropout follow from `step`."""

    step: int = 0
    cycle_ends: list[CycleEnd] = field(default_factory=list)
    """The state before the first step, then one per finished cycle."""
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    journal_length: int = 0


def save_checkpoint(state: TrainState, path: Path) -> None:
    """Write `state` so that a kill at any moment leaves the old checkpoint or the new one."""
    with atomic_file(path) as file:
        torch.save(dataclasses.asdict(state), file)


def load_checkpoint(path: Path) -> TrainState | None:
    """Read the checkpoint, or None where there is none. Loads tensors and plain values only, never code."""
    if not path.exists():
        return None
    values = torch.load(path, map_location="cpu", weights_only=True)
    values["cycle_ends"] = [CycleEnd(**c) for c in values["cycle_ends"]]
    return TrainState(**values)
