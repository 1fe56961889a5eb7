"""Test-time augmentation: the mean of what the model says of an image and of views of it.

Probabilities are averaged, not their logarithms. By default each view weighs as much as the plain image (as fastai 0.7
does with its passes); or the plain image gets the share that gives valid's least log loss (in fastai 2 it is 1/4).
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data.augment import Policy
from pipeline.data.decode import decode_framed
from pipeline.data.images import normalise
from pipeline.evaluation.metrics import log_loss
from pipeline.evaluation.views import Seed, Views, views_of
from pipeline.files import atomic_file
from pipeline.learning.loop import Computation, predict
from pipeline.settings import TtaEvaluate
from pipeline.vision import v2
from pipeline.workspace import Bar

Probs = NDArray[np.float64]

PART = 512
"""Files that are looked at between two saves: a kill costs no more than that."""

PLAIN_WEIGHTS = tuple(i / 10 for i in range(10, -1, -1))
"""The shares of the plain image that `weights: chosen` tries; of equally good ones the first is taken."""


@dataclass(frozen=True)
class ViewedFile:
    """A file, and what its random views are drawn from."""

    path: Path
    sha256: str
    """Of the decoded pixels."""


@dataclass(frozen=True)
class Viewed:
    """Predictions for one split."""

    plain: Probs
    """[N, num_classes] from the plain image."""
    views: Probs
    """[N, num_classes], the mean over the image's views; the plain prediction where it has none."""
    num_views: NDArray[np.int64]
    """[N], beside the plain image."""
    seconds: tuple[float, float]
    """Of the plain pass, and of the pass over the views."""

    def combined(self, plain_weight: float | None) -> Probs:
        """[N, num_classes] with this share for the plain image; None: as much as for each of its views."""
        share = 1 / (self.num_views + 1) if plain_weight is None else np.full(len(self.plain), plain_weight)
        return share[:, None] * self.plain + (1 - share[:, None]) * self.views


@dataclass(frozen=True)
class _ViewsOfFiles(Dataset[list[Tensor]]):
    """`[i]` gives the views of file i, each uint8 [3, H, W]: the plain image alone, or all the others."""

    files: Sequence[ViewedFile]
    tta: TtaEvaluate | None
    policy: Policy
    seed: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Tensor]:
        return [v2.functional.pil_to_tensor(view) for view in self._views(self.files[index])]

    def _views(self, file: ViewedFile) -> Views:
        if self.tta is None:
            return [decode_framed(file.path, self.policy.framing)]
        seed: Seed = (self.seed, "tta", file.sha256)
        return views_of(file.path, self.tta, self.policy, seed=seed)


class _Pixels:
    """Views of one shape, as a source of batches."""

    def __init__(self, views: Sequence[Tensor]) -> None:
        self._views = views
        self.num_samples = len(views)
        self.targets = torch.zeros(len(views), dtype=torch.long)  # unknown, and asked by nobody

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[tuple[Tensor, Tensor]]:
        del draw
        for batch in order:
            yield normalise(torch.stack([self._views[i] for i in batch])), self.targets[: len(batch)]


def look(
    computation: Computation,
    files: Sequence[ViewedFile],
    tta: TtaEvaluate,
    policy: Policy,
    *,
    seed: int,
    workers: int = 0,
    bar: Bar | None = None,
) -> Viewed:
    """Predict the plain images, and then their views. Raises DecodeError for a file that is no readable image."""
    bar, times = bar or Bar(), [time.monotonic()]
    plain = look_plain(computation, files, policy, workers=workers, bar=bar)
    times.append(time.monotonic())
    if tta.views == 0:
        return Viewed(plain, plain, np.zeros(len(plain), dtype=np.int64), (times[1] - times[0], 0.0))
    means = _mean_probs(computation, _ViewsOfFiles(files, tta, policy, seed), workers, bar)
    times.append(time.monotonic())
    num_views = np.array([count for _, count in means])
    views = np.stack([mean if count else alone for (mean, count), alone in zip(means, plain, strict=True)])
    return Viewed(plain, views, num_views, (times[1] - times[0], times[2] - times[1]))


def look_in_parts(
    computation: Computation,
    files: Sequence[ViewedFile],
    tta: TtaEvaluate,
    policy: Policy,
    *,
    seed: int,
    workers: int,
    bar: Bar,
    kept: Path,
) -> Viewed:
    """Look at `PART` files at a time; what is done stands in the folder `kept`, for a killed run to go on from."""
    kept.mkdir(exist_ok=True)
    parts: list[Viewed] = []
    for start in range(0, len(files), PART):
        some, file = files[start : start + PART], kept / f"{start}.npz"
        if file.exists():
            parts.append(_read_viewed(file))
            bar.advance((1 if tta.views == 0 else 2) * len(some))
        else:
            parts.append(look(computation, some, tta, policy, seed=seed, workers=workers, bar=bar))
            _write_viewed(file, parts[-1])
    return Viewed(
        plain=np.concatenate([p.plain for p in parts]),
        views=np.concatenate([p.views for p in parts]),
        num_views=np.concatenate([p.num_views for p in parts]),
        seconds=(sum(p.seconds[0] for p in parts), sum(p.seconds[1] for p in parts)),
    )


def look_plain(
    computation: Computation, files: Sequence[ViewedFile], policy: Policy, *, workers: int = 0, bar: Bar | None = None
) -> Probs:
    """Predict the plain images alone."""
    means = _mean_probs(computation, _ViewsOfFiles(files, None, policy, 0), workers, bar or Bar())
    return np.stack([mean for mean, _ in means])


def choose_plain_weight(viewed: Viewed, targets: NDArray[np.int64]) -> float:
    """The share of the plain image with the least log loss, to be chosen on valid."""
    losses = {weight: round(log_loss(viewed.combined(weight), targets), 9) for weight in PLAIN_WEIGHTS}  # ties are ties
    return min(losses, key=lambda weight: losses[weight])


def _write_viewed(path: Path, viewed: Viewed) -> None:
    with atomic_file(path) as file:
        np.savez(file, **{f.name: getattr(viewed, f.name) for f in fields(viewed)})


def _read_viewed(path: Path) -> Viewed:
    with np.load(path) as stored:
        plain_s, views_s = stored["seconds"].tolist()
        return Viewed(stored["plain"], stored["views"], stored["num_views"], (plain_s, views_s))


def _mean_probs(computation: Computation, images: _ViewsOfFiles, workers: int, bar: Bar) -> list[tuple[Probs, int]]:
    """The mean prediction [num_classes] over the views of each image (nothing where it has none), and their number."""
    loader: DataLoader[list[Tensor]] = DataLoader(
        images, batch_size=None, num_workers=workers, collate_fn=_as_it_is, generator=torch.Generator()
    )
    means: list[tuple[Probs, int]] = []
    for some in _gathered(loader, computation.micro_batch_size):
        probs = iter(_predict_each(computation, [view for views in some for view in views]))
        for views in some:
            own = [next(probs) for _ in views]
            means.append((np.mean(own, axis=0) if own else np.empty(0), len(own)))
        bar.advance(len(some))
    return means


def _gathered(images: Iterable[list[Tensor]], num_views: int) -> Iterator[list[list[Tensor]]]:
    """Images in a row, as many as it takes to have `num_views` views."""
    some: list[list[Tensor]] = []
    for views in images:
        some.append(views)
        if sum(map(len, some)) >= num_views:
            yield some
            some = []
    if some:
        yield some


def _predict_each(computation: Computation, views: Sequence[Tensor]) -> list[Probs]:
    """Probabilities [num_classes] of each view; views of the same shape are computed together."""
    rows: dict[int, Probs] = {}
    for shape in dict.fromkeys(view.shape for view in views):
        same = [i for i, view in enumerate(views) if view.shape == shape]
        logits, _ = predict(computation, _Pixels([views[i] for i in same]))
        rows |= dict(zip(same, logits.double().softmax(1).numpy(), strict=True))
    return [rows[i] for i in range(len(views))]


def _as_it_is(views: list[Tensor]) -> list[Tensor]:
    return views
