"""A split as batches of tensors: decoded once, kept in memory if it fits, augmented again at every draw."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing, decode_framed
from pipeline.data.loading import load
from pipeline.data.manifest import Manifest, Samples, check_unchanged
from pipeline.data.normalisation import Normalisation
from pipeline.stopping import raise_if_requested
from pipeline.vision import v2

MEMORY_BYTES = 2 * 2**30
"""Decoded images are kept in memory if all images of a split take less than this."""

CPU = torch.device("cpu")

UNKNOWN = -1
"""The target of an image without a label."""

Hold = Literal["all", "drawn", "none"]

Key = tuple[int, int]
"""(sample, draw): which image, and which of its random views."""


class Images(Dataset[tuple[Tensor, int]]):
    """The images of one split: `[sample, draw]` gives pixels uint8 [3, image_size, image_size] and the target.

    With a policy each draw is another random view; without one every draw is the plain image.
    """

    def __init__(
        self,
        samples: Samples,
        classes: Sequence[str],
        root: Path,
        framing: Framing,
        *,
        policy: Policy | None = None,
        seed: tuple[int | str, ...] = (),
    ) -> None:
        self._samples = samples
        self._root = root
        self._framing = framing
        self._policy = policy
        self._seed = seed
        self.targets = targets_of(samples, classes)
        self._kept: dict[int, Image.Image] = {}
        self._keeps = False
        self._checked = bytearray(len(samples))
        """For each image, 1 if its file was found to be what ingest saw."""

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        sample, draw = key
        image = self._kept.get(sample) or self._load(sample)
        if self._keeps:
            self._kept[sample] = image
        if self._policy is not None:
            image = self._policy.view(image, seed=(*self._seed, draw, self._samples[sample].sha256))
        return v2.functional.pil_to_tensor(image), int(self.targets[sample])

    def path(self, sample: int) -> str:
        """The path of a sample, below the root of the images."""
        return self._samples[sample].path

    def keep_in_memory(self, *, at_once: bool) -> None:
        """If all images fit into `MEMORY_BYTES`, decode them now, in threads, or keep each when it is first drawn."""
        side, sizes = self._policy.base_px if self._policy else self._framing.image_size, self._samples.sizes
        self._keeps = 3 * side * side * float((sizes.max(axis=1) / sizes.min(axis=1)).sum()) <= MEMORY_BYTES
        if self._keeps and at_once:
            with ThreadPoolExecutor() as pool:
                self._kept = dict(enumerate(pool.map(self._load, range(len(self)))))

    def _load(self, sample: int) -> Image.Image:
        raise_if_requested()  # nobody uses the images that are held, before all are
        known = self._samples[sample]
        path = self._root / known.path
        if not self._checked[sample]:
            check_unchanged(path, known.file_sha256)
            self._checked[sample] = 1
        return decode_framed(path, self._framing) if self._policy is None else self._policy.decode_base(path)


class _Keys(Sequence[list[Key]]):
    """The keys of each batch, made when it is read: an epoch may have millions."""

    def __init__(self, order: Sequence[Sequence[int]], draw: int) -> None:
        self._order, self._draw = order, draw

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> list[Key]: ...
    @overload
    def __getitem__(self, index: slice) -> "_Keys": ...
    def __getitem__(self, index: int | slice) -> "list[Key] | _Keys":
        if isinstance(index, slice):
            return _Keys(self._order[index], self._draw)
        return [(sample, self._draw) for sample in self._order[index]]


class ImageBatches:
    """Batches of normalised images, float32 [N, 3, H, W], and targets, int64 [N], in an order given by the caller."""

    def __init__(
        self,
        images: Images,
        *,
        normalisation: Normalisation,
        workers: int = 0,
        hold: Hold = "all",
        device: torch.device = CPU,
    ) -> None:
        self._images = images
        self._device = device
        self._normalisation = normalisation
        self._workers = workers
        self.num_samples = len(images)
        self.targets = images.targets
        if hold != "none":
            images.keep_in_memory(at_once=hold == "all" or workers > 0)

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one batch per list of sample indices in `order`. Each `draw` gives other random views of the images."""
        keys = _Keys(order, draw)
        for pixels, targets in load(self._images, workers=self._workers, collate=_collate, batches=keys):
            yield normalise(_send(pixels, self._device), self._normalisation), targets

    def name(self, sample: int, *, draw: int) -> str:
        """The path of a sample, below the root of the images."""
        del draw
        return self._images.path(sample)


def open_images_of(
    manifest: Manifest,
    samples: Samples,
    framing: Framing,
    *,
    normalisation: Normalisation,
    workers: int,
    policy: Policy | None = None,
    seed: tuple[int | str, ...] = (),
    hold: Hold = "all",
    device: torch.device = CPU,
) -> ImageBatches:
    """Open `samples` of the manifest as batches: plain images or, with a policy, augmented ones.

    Args:
        framing: how each image is brought to the network's size.
        normalisation: of the backbone that sees the images.
        workers: extra processes that read and augment; 0 reads in this process. The batches are the same.
        seed: with the draw and the image's pixels it fixes each random view.
        hold: which decoded images are kept, if they fit into memory: all, which are decoded now, or those that are
            drawn, unless workers draw them, which end with the epoch.
        device: that computes on them. A GPU gets the pixels and normalises them itself.
    """
    images = Images(samples, manifest.classes, manifest.root, framing, policy=policy, seed=seed)
    return ImageBatches(images, normalisation=normalisation, workers=workers, hold=hold, device=device)


def targets_of(samples: Samples, classes: Sequence[str]) -> Tensor:
    """The index of each sample's label in `classes`, [N]; UNKNOWN for a sample without a label.

    Raises ValueError, which names the labels, if some are not in `classes`.
    """
    names, numbers = samples.labels
    unknown = sorted({names[i] for i in np.unique(numbers)} - {*classes, ""})
    if unknown:
        raise ValueError(
            f"images of class {', '.join(unknown[:5])}, but the model knows {', '.join(classes[:5])}...: it was "
            "trained with another list of classes; train it again on these images"
        )
    index = {name: i for i, name in enumerate(classes)} | {"": UNKNOWN}
    targets = np.array([index.get(name, UNKNOWN) for name in names], dtype=np.int64)
    return torch.from_numpy(targets[numbers])


def normalise(pixels: Tensor, normalisation: Normalisation) -> Tensor:
    """Turn pixels, uint8 [N, 3, H, W], into the float32 values that a backbone expects."""
    mean, std = _statistics(normalisation, pixels.device)
    return pixels.float().div_(255).sub_(mean).div_(std)


@cache
def _statistics(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation, [1, 3, 1, 1] each; kept on the device, which would wait for each copy."""
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (normalisation.mean, normalisation.std)
    )
    return mean, std


def _send(pixels: Tensor, device: torch.device) -> Tensor:
    """Start to copy pixels to a GPU, from memory that it can read while this process goes on: bytes, a quarter of what
    the normalised values would be. Other devices get the values."""
    return pixels.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels


def _collate(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([pixels for pixels, _ in items]), torch.tensor([target for _, target in items])
