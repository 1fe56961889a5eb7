"""Test-time augmentation with a toy model, against a loop over images and views."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

import pipeline.evaluation.tta as tta_module
from pipeline.data.augment import Policy
from pipeline.data.colour import to_rgb
from pipeline.data.decode import Framing, Held, decode_framed
from pipeline.data.images import normalise
from pipeline.evaluation.metrics import log_loss
from pipeline.evaluation.tta import (
    PLAIN_WEIGHTS,
    ImageFile,
    Probs,
    TtaPrediction,
    ViewsOfFiles,
    choose_plain_weight,
    predict_in_parts,
    predict_plain,
    predict_with_tta,
)
from pipeline.evaluation.views import views_of
from pipeline.model.card import IMAGENET
from pipeline.model.compute import Computation
from pipeline.settings import Augment, TtaEvaluate
from pipeline.vision import v2
from pipeline.workspace import Bar
from tests.conftest import PROJECT


class Toy(nn.Module):
    """Three classes by three statistics of the image, at any size."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3)), images.std((1, 2, 3))], dim=1)


COMPUTATION = Computation(Toy(), torch.device("cpu"), "fp32", 4)


def policy(name: str) -> Policy:
    values = yaml.safe_load((PROJECT / "conf" / "augment" / f"{name}.yaml").read_text())
    return Policy(Augment(**values), Framing(32, "zoom", "white"))


def tta(mode: str, **changes: object) -> TtaEvaluate:
    values = yaml.safe_load((PROJECT / "conf" / "tta_evaluate" / f"{mode}.yaml").read_text())
    return TtaEvaluate(**{**values, **changes})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[ImageFile]:
    """Seven noisy images of changing shape, two of them square."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    shapes = [(40, 40), (64, 40), (40, 90), (33, 50), (50, 50), (41, 40), (120, 40)]
    found = []
    for i, (width, height) in enumerate(shapes):
        path = folder / f"{i}.png"
        Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        found.append(ImageFile(path, f"hash{i}"))
    return found


def alone(views: Sequence[Image.Image]) -> Probs:
    """Probabilities of each view, computed one by one."""
    pixels = [normalise(v2.functional.pil_to_tensor(view)[None], IMAGENET) for view in views]
    return np.stack([Toy()(p).double().softmax(1)[0].numpy() for p in pixels])


@pytest.mark.parametrize("mode", ["augment", "multi_crop", "sliding_window", "multi_scale", "flip"])
def test_every_mode_is_the_mean_over_the_plain_image_and_its_views(mode: str, files: list[ImageFile]) -> None:
    how, framed = tta(mode), policy("side_on")
    found = predict_with_tta(COMPUTATION, files, how, framed, normalisation=IMAGENET, seed=3)
    for i, file in enumerate(files):
        views = views_of(file.path, how, framed, seed=(3, "tta", file.sha256))
        each = alone([decode_framed(file.path, framed.framing), *views])
        assert found.num_views[i] == len(views)
        np.testing.assert_allclose(found.plain[i], each[0], rtol=1e-5)
        np.testing.assert_allclose(found.combined(None)[i], each.mean(axis=0), rtol=1e-5)
        if views:
            want = 0.3 * each[0] + 0.7 * each[1:].mean(axis=0)
            np.testing.assert_allclose(found.combined(0.3)[i], want, rtol=1e-5)


def test_images_have_different_numbers_of_views_and_one_without_keeps_its_plain_prediction(
    files: list[ImageFile],
) -> None:
    found = predict_with_tta(
        COMPUTATION, files, tta("sliding_window", zoom=1.0), policy("none"), normalisation=IMAGENET, seed=0
    )
    assert list(found.num_views) == [0, 3, 4, 2, 0, 2, 5]  # e.g. 40 x 90: 72 pixels, 40 to go in steps of 16
    for weight in (None, 0.0, 0.5):
        np.testing.assert_array_equal(found.combined(weight)[[0, 4]], found.plain[[0, 4]])


def test_without_any_view_tta_is_plain(files: list[ImageFile]) -> None:
    for how in (tta("augment", views=0), tta("augment", views=2)):
        found = predict_with_tta(COMPUTATION, files, how, policy("none"), normalisation=IMAGENET, seed=0)
        np.testing.assert_array_equal(
            found.combined(None), predict_plain(COMPUTATION, files, policy("none"), normalisation=IMAGENET)
        )


@pytest.mark.parametrize("mode", ["augment", "multi_crop", "sliding_window", "multi_scale", "flip"])
def test_a_file_is_decoded_once_for_all_views_that_can_share_it(
    mode: str, files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JPEG is decoded again only where a larger view needs more of its pixels."""
    decoded: list[Image.Image] = []

    def counted(image: Image.Image, *rest: Any, **options: Any) -> Image.Image:
        decoded.append(image)
        return to_rgb(image, *rest, **options)

    for px in (290, 400):  # read at 1/8: 37 px, enough for a plain image of 32 but not for one of 38; and 50 px
        noise = np.random.default_rng(px).integers(0, 255, (px, px, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{px}.jpg")
    some = [*files[:3], *(ImageFile(tmp_path / f"{px}.jpg", str(px)) for px in (290, 400))]
    how, framed = tta(mode, scales=[0.85, 1.2] if mode == "multi_scale" else None), policy("side_on")
    how = tta(mode, zoom=1.2) if mode in ("multi_crop", "sliding_window") else how
    images = [ViewsOfFiles(some, each, framed, 3) for each in (None, how)]
    apart = [(images[0][i], images[1][i]) for i in range(len(some))]
    monkeypatch.setattr("pipeline.data.decode.to_rgb", counted)
    for i, (plain, others) in enumerate(apart):
        held = Held()
        for views, wanted in zip((each.views(some[i], held) for each in images), (plain, others), strict=True):
            assert all(map(torch.equal, views, wanted))
    larger = 0 if mode == "flip" else 1
    assert len(decoded) == len(some) + larger
    predict_with_tta(COMPUTATION, some, how, framed, normalisation=IMAGENET, seed=3)
    assert len(decoded) == 2 * (len(some) + larger)


def test_what_a_watched_part_makes_of_the_plain_images_is_kept(files: list[ImageFile], tmp_path: Path) -> None:
    model = nn.Sequential(Toy(), nn.Linear(3, 3))
    computation, framed = Computation(model, torch.device("cpu"), "fp32", 2), policy("side_on")
    found = predict_in_parts(
        computation, files, tta("flip"), framed, normalisation=IMAGENET, seed=0, workers=0, bar=Bar(),
        scratch=tmp_path, watched=model[0],
    )  # fmt: skip
    pixels = [v2.functional.pil_to_tensor(decode_framed(file.path, framed.framing)) for file in files]
    want = Toy()(normalise(torch.stack(pixels), IMAGENET))
    assert found.features is not None
    torch.testing.assert_close(torch.from_numpy(found.features), want)


def test_predictions_do_not_depend_on_the_other_images_or_on_workers(files: list[ImageFile]) -> None:
    how, framed = tta("augment"), policy("side_on")
    together = predict_with_tta(COMPUTATION, files, how, framed, normalisation=IMAGENET, seed=1, workers=1).combined(
        None
    )
    single = np.concatenate(
        [predict_with_tta(COMPUTATION, [f], how, framed, normalisation=IMAGENET, seed=1).combined(None) for f in files]
    )
    np.testing.assert_allclose(together, single, rtol=1e-6)


def test_the_weight_is_that_of_the_lowest_log_loss() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 4, 200)
    plain, views = generator.dirichlet(np.ones(4), 200), generator.dirichlet(np.ones(4), 200)
    views[np.arange(200), targets] += 0.4
    views /= views.sum(axis=1, keepdims=True)
    found = TtaPrediction(plain, views, np.full(200, 3), (0.0, 0.0))
    losses = {w: log_loss(w * plain + (1 - w) * views, targets) for w in PLAIN_WEIGHTS}
    assert choose_plain_weight(found, targets) == min(losses, key=lambda w: losses[w])
    assert choose_plain_weight(TtaPrediction(plain, plain, np.full(200, 3), (0.0, 0.0)), targets) == 1.0


def test_a_killed_prediction_resumes_from_the_parts_that_are_done(
    files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tta_module, "PART", 2)
    how, framed, original = tta("augment"), policy("side_on"), tta_module.predict_with_tta
    predicted: list[int] = []

    def interrupted(computation: Computation, some: Sequence[ImageFile], *rest: Any, **options: Any) -> TtaPrediction:
        if len(predicted) == 2:
            predicted.append(0)
            raise KeyboardInterrupt
        predicted.append(len(some))
        return original(computation, some, *rest, **options)

    def whole(folder: str) -> TtaPrediction:
        return predict_in_parts(
            COMPUTATION,
            files,
            how,
            framed,
            normalisation=IMAGENET,
            seed=1,
            workers=0,
            bar=Bar(),
            scratch=tmp_path / folder,
        )

    monkeypatch.setattr(tta_module, "predict_with_tta", interrupted)
    with pytest.raises(KeyboardInterrupt):
        whole("a")
    resumed = whole("a")
    assert predicted == [2, 2, 0, 2, 1]  # two parts before the kill, the other two after it
    monkeypatch.setattr(tta_module, "predict_with_tta", original)
    undisturbed = whole("b")
    for name in ("plain", "views", "num_views"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(undisturbed, name))
    together = predict_with_tta(COMPUTATION, files, how, framed, normalisation=IMAGENET, seed=1)
    np.testing.assert_allclose(resumed.views, together.views, rtol=1e-6)
