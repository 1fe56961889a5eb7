"""The learner that sees activations: a fresh head. Apart from the others, because it needs no torchvision to load."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.device import choose_device
from pipeline.learning.loop import Learner, ParameterGroup
from pipeline.model.head import Head, build_head, load_card
from pipeline.model.tensors import read_tensors
from pipeline.settings import Runtime, Settings


class TensorBatches:
    """Inputs held as tensors: precomputed activations [N, num_features] and targets [N]."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets
        self.num_samples = len(targets)

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See BatchSource; activations have no random views, so `draw` has no effect."""
        del draw
        for batch in order:
            index = torch.tensor(batch)
            yield self.inputs[index], self.targets[index]


def head_on_activations(precompute: Path, settings: Settings, runtime: Runtime) -> Learner:
    """A fresh head, to be trained on precomputed activations."""
    card = load_card(precompute)
    splits = {s: read_tensors(precompute / f"activations-{s}.safetensors") for s in ("train", "valid")}
    train, valid = (TensorBatches(t["activations"], t["targets"]) for t in splits.values())
    head = build_head(train.inputs, len(card.classes), dropout=card.dropout, seed=settings.seed)
    device = choose_device(runtime)

    def set_mode() -> None:
        head.train()

    return Learner(
        model=head.to(device),
        groups=[head_group(head)],
        train=train,
        train_plain=train,
        valid=valid,
        set_mode=set_mode,
        device=device,
        precision="fp32",
        micro_batch_size=settings.data.micro_batch_size,
    )


def head_group(head: Head) -> ParameterGroup:
    """The head as a group of parameters, at the rate itself."""
    return ParameterGroup("head", list(head.parameters()), 1.0)
