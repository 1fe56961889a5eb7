"""Answers for many files: in order, whatever their number, the device's memory and the files that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing
from pipeline.data.normalisation import Normalisation
from pipeline.evaluation.answers import answer
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.prediction import Predictor, TtaCard
from pipeline.model.card import Card
from pipeline.model.compute import Computation
from pipeline.settings import Augment, TtaEvaluate
from pipeline.shortage import ShortOfMemoryError
from pipeline.workspace import Bar

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Redness(nn.Module):
    """Logits from the mean of red; fails where it gets more images than fit."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.fits = fits
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        red = images[:, 0].mean((1, 2))
        return torch.stack([10 * red, 10 * (1 - red)], dim=1)


def predictor_of(model: nn.Module, *, batch_size: int, views: int = 0) -> Predictor:
    augment = Augment("none", 0.0, 0.0, 1.0, 0.0, "reflect", 1.0, 0.5, 0.0)
    return Predictor(
        Computation(model, torch.device("cpu"), "fp32", batch_size),
        Card("none", 0.0, "fp32", 16, ("red", "other"), PLAIN),
        Policy(augment, Framing(16, "zoom", "white")),
        TtaCard(TtaEvaluate("augment", views, None, None, None, "uniform"), 0, None),
        plain_calibration=Calibration(),
        tta_calibration=Calibration(),
        novelty=None,
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Twelve pictures, from black to red, with one file in between that is none."""
    made = []
    for i in range(12):
        made.append(tmp_path / f"{i}.png")
        Image.new("RGB", (20, 16), (20 * i, 0, 0)).save(made[-1])
    (tmp_path / "5.png").write_text("no picture")
    return made


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (4, 0), (100, 0), (4, 1)])
def test_answers_are_in_order_and_a_bad_file_is_one(files: list[Path], batch_size: int, workers: int) -> None:
    answers = list(answer(predictor_of(Redness(100), batch_size=batch_size), files, workers=workers))
    assert [a.file for a in answers] == files
    assert [a.error for a in answers] == ["" if i != 5 else "not an image but text" for i in range(12)]
    assert answers[5].probs is None
    probs = [a.probs[0] for a in answers if a.probs is not None]
    red = np.array([20 * i / 255 for i in range(12) if i != 5])
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(10 - 20 * red)), atol=1e-5)


def test_the_number_of_images_at_once_is_halved_until_the_memory_is_enough(files: list[Path]) -> None:
    model = Redness(fits=3)
    answers = list(answer(predictor_of(model, batch_size=8), files))
    assert len([a for a in answers if a.probs is not None]) == 11
    assert max(model.sizes) == 8
    assert [s for s in model.sizes if s > 3] == [8, 4]  # once each: what was learned is kept
    with pytest.raises(ShortOfMemoryError, match="ran out with 1 image at once"):
        list(answer(predictor_of(Redness(fits=0), batch_size=8), files))


def test_with_tta_answers_are_those_of_the_whole_evaluation(files: list[Path]) -> None:
    readable = [file for file in files if file.name != "5.png"]
    predictor = predictor_of(Redness(100), batch_size=4, views=3)
    answers = [a.probs for a in answer(predictor, readable, tta=True)]
    np.testing.assert_allclose(np.stack([p for p in answers if p is not None]), predictor.predict(readable, tta=True))
    plain = predictor.predict(readable)
    assert np.abs(plain - np.stack([p for p in answers if p is not None])).max() > 0.01


def test_what_the_model_cannot_say_is_refused_before_the_first_answer(files: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"novelty.safetensors"):
        next(answer(predictor_of(Redness(100), batch_size=4), files, novelty=True))


def test_the_bar_counts_files(files: list[Path]) -> None:
    class Count(Bar):
        total = 0

        def advance(self, count: int = 1, *, note: str = "") -> None:
            del note
            self.total += count

    bar = Count()
    list(answer(predictor_of(Redness(100), batch_size=5), files, bar=bar))
    assert bar.total == len(files)
