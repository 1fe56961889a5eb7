"""Batch sources: samples that training and evaluation can draw in any order. None of them loads torchvision."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self

import torch
from torch import Tensor

from pipeline.model import ranks
from pipeline.model.batches import even_batches
from pipeline.model.compute import Computation, forward

MicroBatch = tuple[Tensor, Tensor]
"""Inputs [N, ...] and targets [N] that go through the model at once: a batch, or a part of one."""


class BatchSource(Protocol):
    """Samples that can be drawn in any order: images, or activations."""

    num_samples: int
    targets: Tensor
    """[num_samples], by sample index."""

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[MicroBatch]:
        """Yield (inputs [N, ...], targets [N]) for each list of sample indices; `draw` numbers random views."""
        ...

    def name(self, sample: int, *, draw: int) -> str:
        """Name a sample, for error messages: the path of an image where it is known."""
        ...


def in_order(source: BatchSource, micro_batch_size: int, *, draw: int = 0) -> Iterator[MicroBatch]:
    """All samples of `source`, in order, in even batches of at most `micro_batch_size`."""
    return source.batches(even_batches(list(range(source.num_samples)), micro_batch_size), draw=draw)


def first_images(source: BatchSource, count: int) -> MicroBatch:
    """The first `count` samples of `source`, or all if it has fewer."""
    return next(iter(source.batches([list(range(min(count, source.num_samples)))], draw=0)))


@dataclass(frozen=True)
class Batch:
    """The samples of one optimizer step, in parts: those of this rank."""

    parts: list[MicroBatch]
    first: int
    """The place of this rank's first sample in the batch, from 0."""
    size: int
    """The number of samples that all ranks have together."""

    @classmethod
    def of(cls, parts: list[MicroBatch]) -> Self:
        """A whole batch, which one rank has."""
        return cls(parts, 0, sum(len(targets) for _, targets in parts))

    def placed(self) -> Iterator[tuple[int, MicroBatch]]:
        """Each part, and the place of its first sample."""
        place = self.first
        for part in self.parts:
            yield place, part
            place += len(part[1])

    def own(self, samples: list[int]) -> list[int]:
        """Those of the whole batch's `samples` that this rank has."""
        return samples[self.first : self.first + sum(len(targets) for _, targets in self.parts)]

    def begin(self, size: int, micro_batch_size: int) -> "Batch":
        """The batch of its first `size` samples; what this rank has of them is cut evenly again."""
        if self.first >= size or not self.parts:
            return Batch([], self.first, size)
        inputs, targets = (torch.cat(tensors)[: size - self.first] for tensors in zip(*self.parts, strict=True))
        cuts = even_batches(list(range(len(targets))), micro_batch_size)
        return Batch([(inputs[part], targets[part]) for part in cuts], self.first, size)


def train_batches(source: BatchSource, order: list[list[int]], *, micro_batch_size: int, draw: int) -> Iterator[Batch]:
    """The batches of `order`, each cut evenly into parts of at most `micro_batch_size`, of which each rank has some."""
    cuts = [ranks.cut(batch, micro_batch_size) for batch in order]
    shares = [ranks.share(parts) for parts in cuts]
    drawn = iter(source.batches([part for parts in shares for part in parts], draw=draw))
    for batch, parts, own in zip(order, cuts, shares, strict=True):
        first = sum(map(len, parts[: ranks.first_of_share(len(parts))]))
        yield Batch([next(drawn) for _ in own], first, len(batch))


class TensorBatches:
    """Inputs that are held as a tensor, like activations [N, num_features], and their targets [N].

    `names` are those of the samples; without them they have numbers.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, names: Sequence[str] | None = None) -> None:
        self.inputs, self.targets = inputs, targets
        self.num_samples = len(targets)
        self._names = names

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[MicroBatch]:
        """See BatchSource; a tensor has no random views, so `draw` has no effect."""
        del draw
        for batch in order:
            index = torch.tensor(batch)
            yield self.inputs[index], self.targets[index]

    def name(self, sample: int, *, draw: int) -> str:
        """See BatchSource."""
        del draw
        return f"image {sample} of the activations" if self._names is None else self._names[sample]


class ViewBatches:
    """Activations [views, N, num_features] of the plain images (view 0) and of augmented views, and targets [N].

    In epoch e, sample i shows view (i + e) modulo the number of views: epochs mix the views, and each sample shows all
    of them in turn.
    """

    def __init__(self, activations: Tensor, targets: Tensor) -> None:
        self.activations, self.targets = activations, targets
        self.num_samples = len(targets)

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[MicroBatch]:
        """See BatchSource; `draw` is the epoch."""
        for batch in order:
            index = torch.tensor(batch)
            yield self.activations[(index + draw) % len(self.activations), index], self.targets[index]

    def name(self, sample: int, *, draw: int) -> str:
        """See BatchSource."""
        views = len(self.activations)
        return f"image {sample} of the activations" + (f", view {(sample + draw) % views}" if views > 1 else "")


class LazyImages:
    """Images that are opened when they are first drawn. Their size, in pixels, may depend on the epoch."""

    def __init__(
        self, targets: Tensor, sizes: Sequence[int], open_at: Callable[[int], BatchSource], *, names: Sequence[str]
    ) -> None:
        self.targets, self.num_samples = targets, len(targets)
        self._names = names
        self._sizes = sizes
        self._open_at = lru_cache(maxsize=1)(open_at)  # images of one size at a time are held in memory

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[MicroBatch]:
        """The batches of epoch `draw`; epochs after the last keep its size."""
        size = self._sizes[min(draw, len(self._sizes) - 1)]
        return self._open_at(size).batches(order, draw=draw)

    def name(self, sample: int, *, draw: int) -> str:
        """See BatchSource."""
        del draw
        return self._names[sample]


class FrozenFeatures:
    """What a frozen backbone makes of the images of a source: float32 [N, num_features]."""

    def __init__(self, images: BatchSource, backbone: Computation) -> None:
        self.targets, self.num_samples = images.targets, images.num_samples
        self._images, self._backbone = images, backbone

    @torch.no_grad()
    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[MicroBatch]:
        """See BatchSource. No batch may be larger than the `micro_batch_size` of the backbone's computation."""
        self._backbone.model.eval()  # batch norm and dropout as when activations are stored
        for images, targets in self._images.batches(order, draw=draw):
            yield forward(self._backbone, images), targets

    def name(self, sample: int, *, draw: int) -> str:
        """See BatchSource."""
        return self._images.name(sample, draw=draw)


class Oversampled:
    """A source in which every class has as many samples as the largest: those of the others are repeated.

    Draw counts within a class differ by at most one in an epoch; which samples get the extra draw changes from epoch to
    epoch. A sample that is drawn twice in an epoch shows the same view.
    """

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        members = [(source.targets == c).nonzero()[:, 0].tolist() for c in range(int(source.targets.max()) + 1)]
        self._members: list[list[int]] = [m for m in members if m]
        self._per_class = max(len(m) for m in self._members)
        self.num_samples = len(self._members) * self._per_class
        self.targets = torch.cat([source.targets[m[:1]].repeat(self._per_class) for m in self._members])

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[MicroBatch]:
        """See BatchSource."""
        return self._source.batches([[self._sample(i, draw) for i in batch] for batch in order], draw=draw)

    def name(self, sample: int, *, draw: int) -> str:
        """See BatchSource."""
        return self._source.name(self._sample(sample, draw), draw=draw)

    def _sample(self, slot: int, draw: int) -> int:
        which, turn = divmod(slot, self._per_class)
        members = self._members[which]
        return members[(turn + draw * self._per_class) % len(members)]  # continues where the last epoch ended
