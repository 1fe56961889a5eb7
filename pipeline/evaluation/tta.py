"""Test-time augmentation (TTA): the mean of what the model predicts for an image and for views of it.

Probabilities are averaged, not their logarithms. By default each view weighs as much as the plain image, as in fastai
0.7. Or the plain image gets the share with the lowest log loss on valid (fastai 2 always uses 1/4).
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.data.augment import Policy
from pipeline.data.decode import decode_framed
from pipeline.data.images import normalise
from pipeline.data.loading import load
from pipeline.data.manifest import check_unchanged
from pipeline.data.normalisation import Normalisation
from pipeline.evaluation.metrics import log_loss
from pipeline.evaluation.views import Seed, Views, views_of
from pipeline.kept import read_sealed, write_sealed
from pipeline.model.batches import even_batches
from pipeline.model.compute import Computation, forward
from pipeline.numbers import NumbersError
from pipeline.settings import TtaEvaluate
from pipeline.vision import v2
from pipeline.workspace import Bar

Probs = NDArray[np.float64]
_Item = TypeVar("_Item")

PART = 512
"""Files between two saves: a kill costs no more work than that."""

PLAIN_WEIGHTS = tuple(i / 10 for i in range(10, -1, -1))
"""The shares of the plain image that `weights: chosen` tries; in a tie the first is chosen."""


@dataclass(frozen=True)
class ImageFile:
    """An image file, and the digest that seeds its random views."""

    path: Path
    sha256: str
    """Of the decoded pixels."""
    file_sha256: str = ""
    """Of the file that ingest read; empty for a file that it did not."""


@dataclass(frozen=True)
class TtaPrediction:
    """The predictions for N images: from the plain images, and from their views."""

    plain: Probs
    """[N, num_classes] from the plain image."""
    views: Probs
    """[N, num_classes], the mean over the image's views; the plain prediction if it has none."""
    num_views: NDArray[np.int64]
    """[N], without the plain image."""
    seconds: tuple[float, float]
    """Taken by the plain images, and by the views."""

    def combined(self, plain_weight: float | None) -> Probs:
        """[N, num_classes], with this share for the plain image; None: the same weight as each of its views."""
        share = 1 / (self.num_views + 1) if plain_weight is None else np.full(len(self.plain), plain_weight)
        return share[:, None] * self.plain + (1 - share[:, None]) * self.views


@dataclass(frozen=True)
class ViewsOfFiles(Dataset[list[Tensor]]):
    """`[i]` gives views of file i, each uint8 [3, H, W]: the plain image if `tta` is None, else all the others."""

    files: Sequence[ImageFile]
    tta: TtaEvaluate | None
    policy: Policy
    seed: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Tensor]:
        return [v2.functional.pil_to_tensor(view) for view in self._views(self.files[index])]

    def _views(self, file: ImageFile) -> Views:
        check_unchanged(file.path, file.file_sha256)
        if self.tta is None:
            return [decode_framed(file.path, self.policy.framing)]
        seed: Seed = (self.seed, "tta", file.sha256)
        return views_of(file.path, self.tta, self.policy, seed=seed)


def predict_with_tta(
    computation: Computation,
    files: Sequence[ImageFile],
    tta: TtaEvaluate,
    policy: Policy,
    *,
    normalisation: Normalisation,
    seed: int,
    workers: int = 0,
    bar: Bar | None = None,
) -> TtaPrediction:
    """Predict the plain images, and then their views.

    Args:
        computation: the model.
        files: the images.
        tta: which views.
        policy: how training framed and augmented images.
        normalisation: from the model's card.
        seed: decides random views, together with each file's digest.
        workers: processes that decode; 0 decodes in this one.
        bar: advances by one per image and pass (one pass if `tta.views` is 0, else two).

    Raises DecodeError for a file that is not a readable image.
    """
    bar, times = bar or Bar(), [time.monotonic()]
    plain = predict_plain(computation, files, policy, normalisation=normalisation, workers=workers, bar=bar)
    times.append(time.monotonic())
    if tta.views == 0:
        return TtaPrediction(plain, plain, np.zeros(len(plain), dtype=np.int64), (times[1] - times[0], 0.0))
    means = _mean_probs(computation, ViewsOfFiles(files, tta, policy, seed), normalisation, workers, bar)
    times.append(time.monotonic())
    num_views = np.array([count for _, count in means])
    views = np.stack([mean if count else alone for (mean, count), alone in zip(means, plain, strict=True)])
    return TtaPrediction(plain, views, num_views, (times[1] - times[0], times[2] - times[1]))


def predict_in_parts(
    computation: Computation,
    files: Sequence[ImageFile],
    tta: TtaEvaluate,
    policy: Policy,
    *,
    normalisation: Normalisation,
    seed: int,
    workers: int,
    bar: Bar,
    scratch: Path,
) -> TtaPrediction:
    """Predict `PART` files at a time; finished parts are kept in the folder `scratch`, for a killed run to resume."""
    scratch.mkdir(exist_ok=True)
    parts: list[TtaPrediction] = []
    for start in range(0, len(files), PART):
        some, file = files[start : start + PART], scratch / f"{start}.npz"
        if (kept := _read_part(file)) is not None:
            parts.append(kept)
            bar.advance((1 if tta.views == 0 else 2) * len(some))
        else:
            part = predict_with_tta(
                computation, some, tta, policy, normalisation=normalisation, seed=seed, workers=workers, bar=bar
            )
            _write_part(file, part)
            parts.append(part)
    return TtaPrediction(
        plain=np.concatenate([p.plain for p in parts]),
        views=np.concatenate([p.views for p in parts]),
        num_views=np.concatenate([p.num_views for p in parts]),
        seconds=(sum(p.seconds[0] for p in parts), sum(p.seconds[1] for p in parts)),
    )


def predict_plain(
    computation: Computation,
    files: Sequence[ImageFile],
    policy: Policy,
    *,
    normalisation: Normalisation,
    workers: int = 0,
    bar: Bar | None = None,
) -> Probs:
    """Predict the plain images alone: [len(files), num_classes]. See `predict_with_tta`."""
    means = _mean_probs(computation, ViewsOfFiles(files, None, policy, 0), normalisation, workers, bar or Bar())
    return np.stack([mean for mean, _ in means])


def choose_plain_weight(prediction: TtaPrediction, targets: NDArray[np.int64]) -> float:
    """The share of the plain image with the lowest log loss, to be chosen on valid."""
    losses = {w: round(log_loss(prediction.combined(w), targets), 9) for w in PLAIN_WEIGHTS}  # rounded: ties are ties
    return min(losses, key=lambda weight: losses[weight])


def _write_part(path: Path, part: TtaPrediction) -> None:
    content = io.BytesIO()
    np.savez(content, **{f.name: getattr(part, f.name) for f in fields(part)})
    write_sealed(path, content.getvalue())


def _read_part(path: Path) -> TtaPrediction | None:
    content = read_sealed(path)
    if content is None:
        return None
    with np.load(io.BytesIO(content)) as stored:
        plain_s, views_s = stored["seconds"].tolist()
        return TtaPrediction(stored["plain"], stored["views"], stored["num_views"], (plain_s, views_s))


def _mean_probs(
    computation: Computation, images: ViewsOfFiles, normalisation: Normalisation, workers: int, bar: Bar
) -> list[tuple[Probs, int]]:
    """For each image, the mean prediction [num_classes] over its views (empty if it has none), and their number."""
    loader = load(images, workers=workers, collate=unchanged)
    means: list[tuple[Probs, int]] = []
    for some in grouped(loader, computation.micro_batch_size, size=len):
        probs = iter(predict_each(computation, [view for views in some for view in views], normalisation))
        for views in some:
            own = [next(probs) for _ in views]
            check_answer(own, images.files[len(means)].path)
            means.append((np.mean(own, axis=0) if own else np.empty(0), len(own)))
        bar.advance(len(some))
    return means


def check_answer(probs: Sequence[Probs], file: Path) -> None:
    """Raise NumbersError, which names the file, unless all probabilities [num_classes] of its views are numbers."""
    if not all(np.isfinite(each).all() for each in probs):
        raise NumbersError(f"the model's answer for {file} is NaN or infinite: {_CHECK_MODEL}")


_CHECK_MODEL = "train the model again, with model.precision=fp32 if it is bf16"


def grouped(items: Iterable[_Item], num_views: int, *, size: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Consecutive items, as many as it takes to have `num_views` views; `size` says how many an item has."""
    some: list[_Item] = []
    for item in items:
        some.append(item)
        if sum(map(size, some)) >= num_views:
            yield some
            some = []
    if some:
        yield some


@torch.no_grad()
def predict_each(computation: Computation, views: Sequence[Tensor], normalisation: Normalisation) -> list[Probs]:
    """Probabilities [num_classes] of each view; views of the same shape are computed together."""
    computation.model.eval()
    rows: dict[int, Probs] = {}
    for shape in dict.fromkeys(view.shape for view in views):
        same = [i for i, view in enumerate(views) if view.shape == shape]
        for batch in even_batches(same, computation.micro_batch_size):
            logits = forward(computation, normalise(torch.stack([views[i] for i in batch]), normalisation)).cpu()
            rows |= dict(zip(batch, logits.double().softmax(1).numpy(), strict=True))
    return [rows[i] for i in range(len(views))]


def unchanged(views: list[Tensor]) -> list[Tensor]:
    return views
