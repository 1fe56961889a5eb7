"""How unlike the training images an image is: against brute force, and told apart as scikit-learn counts it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import nn

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing, decode_framed
from pipeline.data.images import normalise
from pipeline.evaluation.novelty import (
    features_of,
    fit_novelty,
    nearest,
    read_novelty,
    save_novelty,
    spread_sample,
)
from pipeline.model.backbone import build_backbone
from pipeline.model.card import IMAGENET
from pipeline.model.classifier import Classifier
from pipeline.model.compute import Computation
from pipeline.model.ensemble import Ensemble
from pipeline.model.head import Head
from pipeline.settings import Augment
from pipeline.vision import v2
from tests.conftest import Compose


def features(count: int, *, seed: int, shift: float = 1.0) -> torch.Tensor:
    return torch.randn(count, 20, generator=torch.Generator().manual_seed(seed)) + shift


def test_distances_are_those_of_scikit_learn_whatever_the_length_of_the_features() -> None:
    train, new = features(50, seed=0), features(600, seed=1)
    unit = [nn.functional.normalize(x, dim=1).numpy() for x in (train, new)]
    want, _ = NearestNeighbors(n_neighbors=1).fit(unit[0]).kneighbors(unit[1])
    novelty = fit_novelty(train, new)
    found = nearest(5 * new, novelty.references)
    np.testing.assert_allclose(found, want[:, 0], atol=1e-5)
    assert nearest(train, novelty.references).max() < 1e-3


def test_the_share_is_of_validation_images_that_are_nearer() -> None:
    train, valid, new = features(50, seed=0), features(40, seed=1), features(30, seed=2, shift=0.3)
    novelty = fit_novelty(train, valid)
    of_valid, of_new = (nearest(x, novelty.references).numpy() for x in (valid, new))
    assert novelty.share_nearer(new).tolist() == [(of_valid < d).mean() for d in of_new]
    assert novelty.share_nearer(-train).tolist() == [1.0] * 50
    assert novelty.share_nearer(train).max() == 0


def test_images_of_another_kind_are_told_apart() -> None:
    novelty = fit_novelty(features(100, seed=0), features(50, seed=1))
    same, other = (novelty.share_nearer(features(200, seed=2, shift=shift)) for shift in (1.0, 0.2))
    assert roc_auc_score(np.repeat([0, 1], 200), np.concatenate([same, other])) > 0.9
    assert abs((same >= 0.9).mean() - 0.1) < 0.1


def test_what_is_stored_says_the_same(tmp_path: Path) -> None:
    novelty, new = fit_novelty(features(30, seed=0), features(40, seed=1)), features(20, seed=2)
    save_novelty(novelty, tmp_path / "novelty.safetensors")
    again = read_novelty(tmp_path / "novelty.safetensors")
    np.testing.assert_allclose(again.references, novelty.references, atol=1e-3)
    np.testing.assert_allclose(again.share_nearer(new), novelty.share_nearer(new), atol=0.05)


def test_a_sample_takes_as_many_of_each_class() -> None:
    labels = ["a"] * 50 + ["b"] * 3 + ["c"] * 50
    chosen = spread_sample(labels, 21, 0, "x")
    assert chosen == sorted(set(chosen))
    assert Counter(labels[i] for i in chosen) == {"a": 9, "b": 3, "c": 9}
    assert chosen == spread_sample(labels, 21, 0, "x") != spread_sample(labels, 21, 1, "x")
    assert spread_sample(labels, 500, 0, "x") == list(range(103))


def test_features_are_the_backbones_and_of_an_ensemble_its_first_members(tmp_path: Path, compose_conf: Compose) -> None:
    generator, files = np.random.default_rng(0), []
    for i in range(5):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(files[-1])
    framing = Framing(32, "zoom", "white")
    policy = Policy(Augment(**compose_conf()["augment"]), framing)
    members = [_classifier(), _classifier()]
    found = [
        features_of(Computation(model, torch.device("cpu"), "fp32", 2), files, policy, normalisation=IMAGENET)
        for model in (members[0], Ensemble(members), members[1])
    ]
    pixels = torch.stack([v2.functional.pil_to_tensor(decode_framed(file, framing)) for file in files])
    with torch.no_grad():
        want = members[0].eval().backbone(normalise(pixels, IMAGENET))
    torch.testing.assert_close(found[0], want, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def _classifier() -> Classifier:
    backbone = build_backbone("squeezenet1_1")
    return Classifier(backbone, Head(backbone.num_features, 3, dropout=0.0))


@pytest.mark.parametrize("which", [0, 1])
def test_features_that_are_all_zero_are_far_from_everything(which: int) -> None:
    novelty = fit_novelty(features(10, seed=0), features(10, seed=1))
    zeros = torch.zeros(2, 20)
    zeros[which] = features(1, seed=0)[0]
    assert novelty.share_nearer(zeros)[1 - which] == 1
