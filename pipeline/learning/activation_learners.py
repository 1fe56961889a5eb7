"""Learners that train a head on activations. They load without torchvision, unlike those that train on images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.learning.loop import Learner, ParameterGroup
from pipeline.learning.sources import BatchSource, TensorBatches, ViewBatches
from pipeline.model.card import load_card
from pipeline.model.compute import choose_device
from pipeline.model.head import Head, build_head
from pipeline.model.tensors import read_tensors
from pipeline.seeds import permutation
from pipeline.settings import Runtime

SPLITS = ("train", "valid")

PLAIN_ACTIVATIONS = 10_000
"""The plain loss of training is measured on all images, or, if there are more, on a fixed sample of this many: logits
of a million images for a thousand classes would take 4 GB. Where the losses of single images deviate by 0.45 nats, the
standard error of their mean is then 0.0045."""

Splits = dict[str, dict[str, Tensor]]
"""For each of SPLITS: `activations` [views, N, num_features] and `targets` [N]."""


def random_head_on_activations(precompute: Path, runtime: Runtime, *, seed: int, micro_batch_size: int) -> Learner:
    """A head with random weights, for the finder.

    A head that knows the classes already has little left to learn except to memorise the training images, and a sweep
    would take that for progress at ever higher rates.
    """
    card, splits = load_card(precompute), _read_splits(precompute)
    plain = splits["train"]["activations"][0]
    head = build_head(plain, len(card.classes), dropout=card.dropout, seed=seed)
    return on_activations(head, splits, runtime, micro_batch_size=micro_batch_size)


def first_head_on_activations(precompute: Path, runtime: Runtime, *, micro_batch_size: int) -> Learner:
    """The untrained head that `precompute` wrote, to be trained on its activations."""
    card, state = load_card(precompute), read_tensors(precompute / "head.safetensors")
    head = Head(len(state["0.mean"]), len(card.classes), dropout=card.dropout)
    head.load_state_dict(state)
    return on_activations(head, _read_splits(precompute), runtime, micro_batch_size=micro_batch_size)


def plain_activations(precompute: Path, split: str, images: BatchSource, rows: Sequence[int]) -> TensorBatches:
    """The stored activations of plain images: of `rows` of a split, which are `images`."""
    stored = read_tensors(precompute / f"activations-{split}.safetensors")
    index = torch.tensor(rows)
    assert torch.equal(stored["targets"][index], images.targets), precompute
    names = [images.name(i, draw=0) for i in range(len(rows))]
    plain = stored["activations"][0]
    return TensorBatches(plain if rows == range(len(plain)) else plain[index], images.targets, names)


def on_activations(head: Head, splits: Splits, runtime: Runtime, *, micro_batch_size: int) -> Learner:
    """A head, to be trained on the activations of train and measured on those of valid."""
    plain, valid = (TensorBatches(splits[name]["activations"][0], splits[name]["targets"]) for name in SPLITS)
    train, device = ViewBatches(splits["train"]["activations"], plain.targets), choose_device(runtime)
    if plain.num_samples > PLAIN_ACTIVATIONS:
        rows = torch.tensor(permutation(plain.num_samples, "train_plain")[:PLAIN_ACTIVATIONS])
        plain = TensorBatches(plain.inputs[rows], plain.targets[rows])
    return on_features(head.to(device), train, plain, valid, device=device, micro_batch_size=micro_batch_size)


def on_features(
    head: Head,
    train: BatchSource,
    train_plain: BatchSource,
    valid: BatchSource,
    *,
    device: torch.device,
    micro_batch_size: int,
) -> Learner:
    """A head on `device`, to be trained and measured on features, from wherever they come."""

    def set_mode() -> None:
        head.train()

    return Learner(
        model=head,
        groups=[head_group(head)],
        train=train,
        train_plain=train_plain,
        valid=valid,
        set_mode=set_mode,
        device=device,
        precision="fp32",
        micro_batch_size=micro_batch_size,
        linear=True,
    )


def head_group(head: Head) -> ParameterGroup:
    """The head as a group of parameters; other groups' rates are multiples of its own."""
    return ParameterGroup("head", list(head.parameters()), 1.0)


def _read_splits(precompute: Path) -> Splits:
    return {split: read_tensors(precompute / f"activations-{split}.safetensors") for split in SPLITS}
