"""Answers for many image files, one after the other as they are ready. What cannot be read is an answer too."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.data.augment import Policy
from pipeline.data.decode import DecodeError, decode, hash_pixels
from pipeline.data.loading import load
from pipeline.evaluation.novelty import features_of_pixels
from pipeline.evaluation.prediction import Predictor, TtaCard
from pipeline.evaluation.tta import ImageFile, Probs, TtaPrediction, ViewsOfFiles, check_answer, grouped, predict_each
from pipeline.shortage import ShortOfMemoryError
from pipeline.workspace import Bar


@dataclass(frozen=True)
class Answer:
    """What a model says of one image file."""

    file: Path
    probs: Probs | None = None
    """Calibrated probabilities [num_classes], in the order of `card.classes`; None if the file cannot be read."""
    share_nearer: float | None = None
    """Share of the validation images that are nearer to the training images, if it was asked for."""
    error: str = ""
    """Why the file cannot be read."""


@dataclass(frozen=True)
class _Views:
    """What the network sees of a file: uint8 [3, H, W] each."""

    plain: Tensor
    others: list[Tensor]


@dataclass(frozen=True)
class _Packed:
    """Views of several files in few tensors: to send one takes another process longer than to read a small file."""

    pixels: list[Tensor]
    """Views of the same shape, uint8 [N, 3, H, W] each."""
    places: list[list[tuple[int, int]] | str]
    """For each file where its views are, as (tensor, row), the plain one first; or why it cannot be read."""


@dataclass(frozen=True)
class _Files(Dataset["_Views | str"]):
    """`[i]` gives the views of file i, or why it cannot be read."""

    files: Sequence[Path]
    policy: Policy
    tta: TtaCard | None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> _Views | str:
        file = self.files[index]
        try:
            [plain] = ViewsOfFiles([ImageFile(file, "")], None, self.policy, 0)[0]
            return _Views(plain, [] if self.tta is None else self._others(file, self.tta))
        except DecodeError as error:
            return str(error)

    def _others(self, file: Path, how: TtaCard) -> list[Tensor]:
        pixels = decode(file, background=self.policy.framing.background).image
        return ViewsOfFiles([ImageFile(file, hash_pixels(pixels))], how.tta, self.policy, how.seed)[0]


def answer(
    predictor: Predictor,
    files: Sequence[Path],
    *,
    tta: bool = False,
    novelty: bool = False,
    workers: int = 0,
    bar: Bar | None = None,
) -> Iterator[Answer]:
    """Yield an answer per file, in order.

    Args:
        predictor: the model.
        files: paths of images in any format that training accepts; any other file gives an answer with an error.
        tta: whether to average over views of each image, as in the evaluation.
        novelty: whether to compare each image with the training images.
        workers: processes that decode; 0 decodes in this one.
        bar: advances by one per file.

    Raises ValueError if the model does not have what `novelty` needs.
    """
    if novelty:
        predictor.compared()
    images = _Files(files, predictor.policy, predictor.tta_card if tta else None)
    at_once = 1 if tta else predictor.computation.micro_batch_size
    read = chain.from_iterable(map(_unpack, load(images, workers=workers, collate=_pack, batch_size=at_once)))
    bar = bar or Bar()
    for some in grouped(zip(files, read, strict=True), predictor.computation.micro_batch_size, size=_num_views):
        predictor, answers = _with_less_memory(predictor, some, tta=tta, novelty=novelty)
        for each in answers:
            bar.advance()
            yield each


_Found = tuple[Path, "_Views | str"]


def _pack(read: "list[_Views | str]") -> _Packed:
    by_shape: dict[torch.Size, list[Tensor]] = {}
    places: list[list[tuple[int, int]] | str] = []
    for views in read:
        if isinstance(views, str):
            places.append(views)
            continue
        own = []
        for view in (views.plain, *views.others):
            same = by_shape.setdefault(view.shape, [])
            own.append((list(by_shape).index(view.shape), len(same)))
            same.append(view)
        places.append(own)
    return _Packed([torch.stack(same) for same in by_shape.values()], places)


def _unpack(packed: _Packed) -> "Iterator[_Views | str]":
    for places in packed.places:
        if isinstance(places, str):
            yield places
        else:
            plain, *others = [packed.pixels[tensor][row] for tensor, row in places]
            yield _Views(plain, others)


def _num_views(found: _Found) -> int:
    """Of a file that can be read; none of any other."""
    _, views = found
    return 1 + len(views.others) if isinstance(views, _Views) else 0


def _with_less_memory(
    predictor: Predictor, some: list[_Found], *, tta: bool, novelty: bool
) -> tuple[Predictor, list[Answer]]:
    """Answer for a group, and halve the number of images computed at once until the device's memory is enough."""
    while True:
        try:
            return predictor, _answer_group(predictor, some, tta=tta, novelty=novelty)
        except ShortOfMemoryError:
            size = predictor.computation.micro_batch_size
            if size == 1:
                raise
            predictor = replace(predictor, computation=replace(predictor.computation, micro_batch_size=size // 2))


def _answer_group(predictor: Predictor, some: list[_Found], *, tta: bool, novelty: bool) -> list[Answer]:
    readable = {file: views for file, views in some if isinstance(views, _Views)}
    probs = dict(zip(readable, _probs(predictor, list(readable.values()), tta=tta), strict=True))
    shares = dict(zip(readable, _shares(predictor, list(readable.values())) if novelty else [], strict=novelty))
    for file, each in probs.items():
        check_answer([each], file)
    return [
        Answer(file, error=views) if isinstance(views, str) else Answer(file, probs[file], shares.get(file))
        for file, views in some
    ]


def _probs(predictor: Predictor, some: list[_Views], *, tta: bool) -> list[Probs]:
    if not some:
        return []
    computation, normalisation = predictor.computation, predictor.card.normalisation
    rows = iter(
        predict_each(computation, [view for views in some for view in (views.plain, *views.others)], normalisation)
    )
    plain, means = [], []
    for views in some:
        plain.append(next(rows))
        others = [next(rows) for _ in views.others]
        means.append(np.mean(others, axis=0) if others else plain[-1])
    num_views = np.array([len(views.others) for views in some])
    prediction = TtaPrediction(np.stack(plain), np.stack(means), num_views, (0.0, 0.0))
    combined = prediction.combined(predictor.tta_card.plain_weight) if tta else prediction.plain
    return [*predictor.calibration(tta=tta).probs(combined)]


def _shares(predictor: Predictor, some: list[_Views]) -> list[float]:
    if not some:
        return []
    computation, normalisation = predictor.computation, predictor.card.normalisation
    pixels = torch.stack([views.plain for views in some])
    features = [
        features_of_pixels(computation, part, normalisation=normalisation)
        for part in torch.split(pixels, computation.micro_batch_size)
    ]
    return [float(share) for share in predictor.compared().share_nearer(torch.cat(features))]
