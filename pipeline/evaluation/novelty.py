"""How far an image is from everything that a model was trained on.

The distance from the image's features, as the backbone of the trained model gives them, to the nearest of a sample of
training images, each scaled to length 1 (Sun et al. 2022, arXiv:2204.06507, with k = 1 because the sample is small). It
was chosen over the Mahalanobis distance (Lee et al. 2018, arXiv:1807.03888), which took other photos for nearer than
the model's own where their features were smaller. The distance itself tells people nothing, so it is given as the share
of validation images that are nearer.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from pipeline.data.augment import Policy
from pipeline.data.images import normalise
from pipeline.data.loading import load
from pipeline.data.normalisation import Normalisation
from pipeline.evaluation.tta import ImageFile, ViewsOfFiles
from pipeline.model.backbone import Backbone
from pipeline.model.classifier import Classifier
from pipeline.model.compute import Computation, forward
from pipeline.model.ensemble import Ensemble
from pipeline.model.tensors import read_tensors, save_tensors
from pipeline.seeds import permutation
from pipeline.stopping import raise_if_requested

Shares = NDArray[np.float64]
_QUERIES = 256
"""Images compared with all references at once."""


@dataclass(frozen=True)
class Novelty:
    """What new images are compared with."""

    references: Tensor
    """Features of training images, [R, num_features], each of length 1."""
    distances: Tensor
    """Of validation images to the nearest reference, [V], in ascending order."""

    def share_nearer(self, features: Tensor) -> Shares:
        """For each row of features [N, num_features], the share of validation images that are nearer, [N] in 0..1."""
        count = torch.searchsorted(self.distances, nearest(features, self.references))
        shares: Shares = (count.double() / len(self.distances)).numpy()
        return shares


def fit_novelty(train: Tensor, valid: Tensor) -> Novelty:
    """Gather references and distances from the features of training and of validation images, [N, num_features]."""
    references = _unit(train)
    return Novelty(references, nearest(valid, references).sort().values)


def nearest(features: Tensor, references: Tensor) -> Tensor:
    """The distance of each row of features [N, F], scaled to length 1, to the nearest of `references` [R, F]: [N]."""
    rows = torch.split(_unit(features), _QUERIES)
    return torch.cat([(2 - 2 * (some @ references.T).amax(dim=1)).clamp(min=0).sqrt() for some in rows])


def save_novelty(novelty: Novelty, path: Path) -> None:
    """Write a safetensors file; the references in half precision."""
    save_tensors({"references": novelty.references.half(), "distances": novelty.distances}, path)


def read_novelty(path: Path) -> Novelty:
    """Read what `save_novelty` wrote."""
    tensors = read_tensors(path)
    return Novelty(_unit(tensors["references"]), tensors["distances"])


def spread_sample(labels: Sequence[str], at_most: int, *parts: int | str) -> list[int]:
    """Indices of `at_most` of the images with these labels, in ascending order: as many of each class as there are.

    Which ones follows from `parts`.
    """
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for place, index in enumerate(permutation(len(labels), *parts)):
        ranked.append((seen[labels[index]], place, index))  # the first of each class, then the second of each, ...
        seen[labels[index]] += 1
    return sorted(index for _, _, index in sorted(ranked)[:at_most])


def features_of(
    computation: Computation, files: Sequence[Path], policy: Policy, *, normalisation: Normalisation, workers: int = 0
) -> Tensor:
    """What the model's backbone makes of the plain images, [len(files), num_features].

    Of an ensemble, its first member's: the others' features are not in the same space. `files` must not be empty.
    Raises DecodeError for a file that is not a readable image.
    """
    return torch.cat([*_features(computation, files, policy, normalisation, workers)])


def _features(
    computation: Computation, files: Sequence[Path], policy: Policy, normalisation: Normalisation, workers: int
) -> Iterator[Tensor]:
    plain = ViewsOfFiles([ImageFile(file, "") for file in files], None, policy, 0)
    for [pixels] in load(plain, workers=workers, collate=default_collate, batch_size=computation.micro_batch_size):
        raise_if_requested()
        yield features_of_pixels(computation, pixels, normalisation=normalisation)


@torch.no_grad()
def features_of_pixels(computation: Computation, pixels: Tensor, *, normalisation: Normalisation) -> Tensor:
    """What the model's backbone makes of framed images, uint8 [N, 3, H, W]: [N, num_features]. See `features_of`."""
    computation.model.eval()
    return forward(computation, normalise(pixels, normalisation), backbone_of(computation.model)).cpu()


def backbone_of(model: nn.Module) -> Backbone:
    """The backbone that gives the features: a classifier's, or that of an ensemble's first member."""
    first = model.members[0] if isinstance(model, Ensemble) else model
    assert isinstance(first, Classifier), type(first)
    return first.backbone


def _unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features.float(), dim=1)
