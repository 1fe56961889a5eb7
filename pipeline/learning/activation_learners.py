"""The learners that see activations: a head alone. Apart from the others, because they need no torchvision to load."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.learning.loop import Learner, ParameterGroup
from pipeline.model.compute import choose_device
from pipeline.model.head import Head, build_head, load_card
from pipeline.model.tensors import read_tensors
from pipeline.settings import Runtime, Settings

Splits = dict[str, dict[str, Tensor]]
"""For train and valid: `activations` [views, N, num_features] and `targets` [N]."""


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


class ViewBatches:
    """Activations [views, N, num_features] of the plain images (view 0) and of augmented views, and targets [N].

    In epoch e, sample i shows view (i + e) modulo their number: epochs mix them, and each sample shows all in turn.
    """

    def __init__(self, activations: Tensor, targets: Tensor) -> None:
        self.activations, self.targets = activations, targets
        self.num_samples = len(targets)

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See BatchSource; `draw` is the epoch."""
        for batch in order:
            index = torch.tensor(batch)
            yield self.activations[(index + draw) % len(self.activations), index], self.targets[index]


def random_head_on_activations(precompute: Path, settings: Settings, runtime: Runtime) -> Learner:
    """A head with random weights, for the finder.

    One that knows the classes already has little to learn but the training images by heart, and that a sweep would take
    for progress at ever higher rates.
    """
    card, splits = load_card(precompute), _read_splits(precompute)
    plain = splits["train"]["activations"][0]
    head = build_head(plain, len(card.classes), dropout=card.dropout, seed=settings.seed)
    return on_activations(head, splits, settings, runtime)


def first_head_on_activations(precompute: Path, settings: Settings, runtime: Runtime) -> Learner:
    """The head that `precompute` began, to be trained."""
    card, state = load_card(precompute), read_tensors(precompute / "head.safetensors")
    head = Head(len(state["0.mean"]), len(card.classes), dropout=card.dropout)
    head.load_state_dict(state)
    return on_activations(head, _read_splits(precompute), settings, runtime)


def on_activations(head: Head, splits: Splits, settings: Settings, runtime: Runtime) -> Learner:
    """A head, to be trained on the activations of train and measured on those of valid."""
    plain, valid = (TensorBatches(t["activations"][0], t["targets"]) for t in splits.values())
    device = choose_device(runtime)

    def set_mode() -> None:
        head.train()

    return Learner(
        model=head.to(device),
        groups=[head_group(head)],
        train=ViewBatches(splits["train"]["activations"], plain.targets),
        train_plain=plain,
        valid=valid,
        set_mode=set_mode,
        device=device,
        precision="fp32",
        micro_batch_size=settings.data.micro_batch_size,
        linear=True,
    )


def head_group(head: Head) -> ParameterGroup:
    """The head as a group of parameters, at the rate itself."""
    return ParameterGroup("head", list(head.parameters()), 1.0)


def _read_splits(precompute: Path) -> Splits:
    return {split: read_tensors(precompute / f"activations-{split}.safetensors") for split in ("train", "valid")}
