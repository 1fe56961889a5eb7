"""Test-time augmentation (TTA): the mean of what the model predicts for an image and for views of it.

Probabilities are averaged, not their logarithms. By default each view weighs as much as the plain image, as in fastai
0.7. Or the plain image gets the share with the lowest log loss on valid (fastai 2 always uses 1/4).
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.data.augment import Policy
from pipeline.data.decode import Held, decode_framed
from pipeline.data.images import normalise
from pipeline.data.loading import load
from pipeline.data.manifest import check_unchanged
from pipeline.data.normalisation import Normalisation
from pipeline.evaluation.metrics import log_loss
from pipeline.evaluation.views import Seed, Views, views_of
from pipeline.kept import read_sealed, write_sealed
from pipeline.model import ranks
from pipeline.model.batches import even_batches
from pipeline.model.compute import Computation, forward
from pipeline.numbers import NumbersError
from pipeline.settings import TtaEvaluate
from pipeline.vision import v2
from pipeline.workspace import Bar

Probs = NDArray[np.float64]
_Item = TypeVar("_Item")

PART = 128
"""Files between two saves: a kill costs no more work than that. Several ranks compute a part each at a time."""

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
    """Taken by the plain images, and, beyond that, by the views."""
    features: NDArray[np.float32] | None = None
    """[N, num_features], what `watched` made of the plain images, if a module was to be watched."""

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
        return self.views(self.files[index], {})

    def views(self, file: ImageFile, held: Held) -> list[Tensor]:
        """The views of a file, uint8 [3, H, W] each; what is decoded of it is in `held` then, and taken from there."""
        check_unchanged(file.path, file.file_sha256)
        return [v2.functional.pil_to_tensor(view) for view in self._decode(file, held)]

    def _decode(self, file: ImageFile, held: Held) -> Views:
        if self.tta is None:
            return [decode_framed(file.path, self.policy.framing, held)]
        seed: Seed = (self.seed, "tta", file.sha256)
        return views_of(file.path, self.tta, self.policy, seed=seed, held=held)


@dataclass(frozen=True)
class _Shown:
    """What the network sees of a file, uint8 [3, H, W] each."""

    plain: list[Tensor]
    """The plain image alone."""
    others: list[Tensor]
    seconds: tuple[float, float]
    """Taken to make the plain image, and, after it, the others."""


@dataclass(frozen=True)
class _PlainAndViews(Dataset[_Shown]):
    """`[i]` gives the plain image of file i and its other views: decoded once, unless they need it larger."""

    plain: ViewsOfFiles
    others: ViewsOfFiles

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int) -> _Shown:
        file, held, times = self.plain.files[index], Held(), [time.monotonic()]
        plain = self.plain.views(file, held)
        times.append(time.monotonic())
        others = self.others.views(file, held)
        times.append(time.monotonic())
        return _Shown(plain, others, (times[1] - times[0], times[2] - times[1]))


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
    watched: nn.Module | None = None,
) -> TtaPrediction:
    """Predict the plain images and their views.

    Args:
        computation: the model.
        files: the images.
        tta: which views.
        policy: how training framed and augmented images.
        normalisation: from the model's card.
        seed: decides random views, together with each file's digest.
        workers: processes that decode; 0 decodes in this one.
        bar: advances by one per image when its plain view is predicted, and, unless `tta.views` is 0, by one when its
            views are.
        watched: a part of the model, whose output for the plain images is kept.

    Raises DecodeError for a file that is not a readable image.
    """
    bar, began = bar or Bar(), time.monotonic()
    plain = _Means(computation, normalisation, files, bar, watched)
    images = ViewsOfFiles(files, None, policy, 0)
    if tta.views == 0:
        plain.add_all(load(images, workers=workers, collate=unchanged))
        taken = time.monotonic() - began
        return TtaPrediction(plain.probs, plain.probs, plain.counts, (taken, 0.0), plain.features)
    others, made = _Means(computation, normalisation, files, bar), np.zeros(2)
    for shown in load(_PlainAndViews(images, ViewsOfFiles(files, tta, policy, seed)), workers=workers, collate=_same):
        plain.add(shown.plain)
        others.add(shown.others)
        made += shown.seconds
    plain.finish()
    others.finish()
    rest = (
        time.monotonic() - began - plain.seconds - others.seconds
    )  # made the images, in as many processes as there are
    plain_s = plain.seconds + rest * made[0] / made.sum()
    views = np.stack([mean if n else alone for (mean, n), alone in zip(others.means, plain.probs, strict=True)])
    seconds = (float(plain_s), float(rest + plain.seconds + others.seconds - plain_s))
    return TtaPrediction(plain.probs, views, others.counts, seconds, plain.features)


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
    watched: nn.Module | None = None,
) -> TtaPrediction:
    """Predict `PART` files at a time; finished parts are kept in the folder `scratch`, for a killed run to resume.

    Several ranks get the same, from parts that they compute in turn.
    """
    scratch.mkdir(exist_ok=True)
    some = {scratch / f"{start}.npz": files[start : start + PART] for start in range(0, len(files), PART)}
    done = ranks.told(lambda: {file: part for file in some if (part := _read_part(file)) is not None})
    missing, passes = [file for file in some if file not in done], 1 if tta.views == 0 else 2
    bar.advance(passes * sum(len(some[file]) for file in done))
    predicted = (
        predict_with_tta(
            computation,
            some[file],
            tta,
            policy,
            normalisation=normalisation,
            seed=seed,
            workers=workers,
            bar=bar if ranks.count() == 1 else None,
            watched=watched,
        )
        for file in ranks.dealt(missing)
    )
    for file, part in zip(missing, ranks.merged(predicted, len(missing)), strict=True):
        if ranks.is_first():
            _write_part(file, part)
        done[file] = part
        if ranks.count() > 1:
            bar.advance(passes * len(some[file]))
    parts = [done[file] for file in some]
    return TtaPrediction(
        plain=np.concatenate([p.plain for p in parts]),
        views=np.concatenate([p.views for p in parts]),
        num_views=np.concatenate([p.num_views for p in parts]),
        seconds=(sum(p.seconds[0] for p in parts), sum(p.seconds[1] for p in parts)),
        features=None if watched is None else np.concatenate([p.features for p in parts if p.features is not None]),
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
    plain = _Means(computation, normalisation, files, bar or Bar())
    plain.add_all(load(ViewsOfFiles(files, None, policy, 0), workers=workers, collate=unchanged))
    return plain.probs


def choose_plain_weight(prediction: TtaPrediction, targets: NDArray[np.int64]) -> float:
    """The share of the plain image with the lowest log loss, to be chosen on valid."""
    losses = {w: round(log_loss(prediction.combined(w), targets), 9) for w in PLAIN_WEIGHTS}  # rounded: ties are ties
    return min(losses, key=lambda weight: losses[weight])


def _write_part(path: Path, part: TtaPrediction) -> None:
    content = io.BytesIO()
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    np.savez(content, **{name: value for name, value in values.items() if value is not None})
    write_sealed(path, content.getvalue())


def _read_part(path: Path) -> TtaPrediction | None:
    content = read_sealed(path)
    if content is None:
        return None
    with np.load(io.BytesIO(content)) as stored:
        plain_s, views_s = stored["seconds"].tolist()
        features = stored.get("features")
        return TtaPrediction(stored["plain"], stored["views"], stored["num_views"], (plain_s, views_s), features)


class _Means:
    """The mean prediction over the views of each file; views wait until there are enough of them for a batch."""

    def __init__(
        self,
        computation: Computation,
        normalisation: Normalisation,
        files: Sequence[ImageFile],
        bar: Bar,
        watched: nn.Module | None = None,
    ) -> None:
        self.means: list[tuple[Probs, int]] = []
        """For each file, the mean [num_classes] (empty if it has no views), and the number of its views."""
        self.seconds = 0.0
        """Taken by the network."""
        self._computation, self._normalisation, self._files, self._bar = computation, normalisation, files, bar
        self._watched, self._outputs = watched, list[Tensor]()
        self._waiting: list[list[Tensor]] = []

    @property
    def probs(self) -> Probs:
        """[N, num_classes], if every file has views."""
        return np.stack([mean for mean, _ in self.means])

    @property
    def counts(self) -> NDArray[np.int64]:
        """[N], the number of each file's views."""
        return np.array([count for _, count in self.means], dtype=np.int64)

    @property
    def features(self) -> NDArray[np.float32] | None:
        """[views, num_features], what the watched module made of all views; None if there is none."""
        return None if self._watched is None else torch.cat(self._outputs).numpy()

    def add_all(self, items: Iterable[list[Tensor]]) -> None:
        """Predict the views of all files."""
        for views in items:
            self.add(views)
        self.finish()

    def add(self, views: list[Tensor]) -> None:
        """Take the views of the next file, uint8 [3, H, W] each."""
        self._waiting.append(views)
        if sum(map(len, self._waiting)) >= self._computation.micro_batch_size:
            self.finish()

    def finish(self) -> None:
        """Predict the views that wait."""
        began, waiting = time.monotonic(), self._waiting
        with _outputs_of(self._watched, self._outputs):
            probs = iter(predict_each(self._computation, [v for views in waiting for v in views], self._normalisation))
        for views in waiting:
            own = [next(probs) for _ in views]
            check_answer(own, self._files[len(self.means)].path)
            self.means.append((np.mean(own, axis=0) if own else np.empty(0), len(own)))
        self._waiting = []
        self.seconds += time.monotonic() - began
        self._bar.advance(len(waiting))


@contextmanager
def _outputs_of(module: nn.Module | None, outputs: list[Tensor]) -> Iterator[None]:
    """Append to `outputs` what the module gives within the block."""
    if module is None:
        yield
        return
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.float().cpu()))
    try:
        yield
    finally:
        handle.remove()


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
            logits = forward(
                computation, normalise(torch.stack([views[i] for i in batch]).to(computation.device), normalisation)
            ).cpu()
            rows |= dict(zip(batch, logits.double().softmax(1).numpy(), strict=True))
    return [rows[i] for i in range(len(views))]


def unchanged(views: list[Tensor]) -> list[Tensor]:
    return views


def _same(shown: _Shown) -> _Shown:
    return shown
