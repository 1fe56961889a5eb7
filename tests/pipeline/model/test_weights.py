"""Weights: where they come from, and clear errors if they are missing or wrong."""

import copy
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.data.normalisation import Normalisation
from pipeline.model.backbone import build_backbone
from pipeline.model.card import IMAGENET, Card, load_card
from pipeline.model.classifier import Classifier, load_classifier, load_model, save_model
from pipeline.model.ensemble import Ensemble
from pipeline.model.head import build_head
from pipeline.model.tensors import read_tensors, save_tensors
from pipeline.model.weights import load_pretrained
from pipeline.vision import models

ARCH = "shufflenet_v2_x0_5"


def test_a_file_of_torchvision_names_is_loaded_with_or_without_its_last_layer(tmp_path: Path) -> None:
    original = models.get_model_builder(ARCH)(weights=None)
    save_tensors(original.state_dict(), tmp_path / "whole.safetensors")
    pretrained = load_pretrained(ARCH, str(tmp_path / "whole.safetensors"), seed=0)
    own = pretrained.backbone.network.state_dict()
    assert all(torch.equal(own[n], t) for n, t in original.state_dict().items() if n in own)
    save_tensors(own, tmp_path / "cut.safetensors")
    again = load_pretrained(ARCH, str(tmp_path / "cut.safetensors"), seed=1)
    assert all(torch.equal(again.backbone.network.state_dict()[n], t) for n, t in own.items())
    assert again.classifier is None


@pytest.mark.parametrize("arch", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "squeezenet1_1"])
def test_the_last_layer_of_the_weights_gives_their_own_answers(arch: str, tmp_path: Path) -> None:
    original = models.get_model_builder(arch)(weights=None, num_classes=7).eval()
    with torch.no_grad():  # so that SqueezeNet's last ReLU, which a head has no use for, cuts nothing off
        [p for n, p in original.named_parameters() if n.endswith("bias")][-1].fill_(50)
    save_tensors(original.state_dict(), tmp_path / "whole.safetensors")
    pretrained = load_pretrained(arch, str(tmp_path / "whole.safetensors"), seed=0)
    assert pretrained.classifier is not None
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        answers = pretrained.classifier(pretrained.backbone.eval()(images))
        torch.testing.assert_close(answers, original(images), rtol=1e-4, atol=1e-4)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    save_tensors({"x": torch.tensor([0.5, 1.25])}, tmp_path / "x.safetensors", half=True)
    assert torch.equal(read_tensors(tmp_path / "x.safetensors")["x"], torch.tensor([0.5, 1.25]))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_tensors(build_backbone("squeezenet1_1").network.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=f"of another architecture than model.arch={ARCH}"):
        load_pretrained(ARCH, str(tmp_path / "other.safetensors"), seed=0)


@pytest.mark.parametrize(
    ("weights", "error", "said"),
    [
        ("no/such.safetensors", FileNotFoundError, "no such file"),
        ("glyphs", FileNotFoundError, "not shipped for model.arch"),
    ],
)
def test_missing_weights_say_what_to_do(weights: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        load_pretrained("mnasnet1_3", weights, seed=0)


def test_files_that_could_run_code_and_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="others can run code"):
        load_pretrained(ARCH, str(tmp_path / "w.pt"), seed=0)
    (tmp_path / "w.safetensors").write_bytes(b"not really")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_pretrained(ARCH, str(tmp_path / "w.safetensors"), seed=0)


def test_an_offline_machine_is_told_where_to_put_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConnectionError, match=f"put it at {tmp_path}/hub/checkpoints/shufflenet"):
        load_pretrained(ARCH, "imagenet", seed=0)


def test_random_weights_follow_from_the_seed_and_do_not_touch_the_rng() -> None:
    rng = torch.get_rng_state()
    a, b, c = (load_pretrained(ARCH, "none", seed=s).backbone.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a)
    assert torch.equal(rng, torch.get_rng_state())


def test_a_saved_classifier_comes_back_whole(tmp_path: Path) -> None:
    backbone = load_pretrained(ARCH, "none", seed=0).backbone
    model = Classifier(backbone, build_head(torch.randn(5, backbone.num_features), 3, dropout=0.2, seed=0))
    card = Card(ARCH, 0.2, "fp32", 32, ("a", "b", "<c>"), Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    save_model(model, card, tmp_path)
    loaded, read = load_classifier(tmp_path)
    assert read == card
    assert all(torch.equal(loaded.state_dict()[n], t) for n, t in model.state_dict().items())


def test_an_old_card_without_normalisation_is_read_with_imagenets(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(
        '{"arch": "resnet18", "dropout": 0.2, "precision": "fp32", "image_size": 32, "classes": ["a", "b"]}'
    )
    assert load_card(tmp_path) == Card("resnet18", 0.2, "fp32", 32, ("a", "b"), IMAGENET)


def test_a_saved_ensemble_comes_back_and_predicts_the_mean_of_its_members(tmp_path: Path) -> None:
    backbone = load_pretrained(ARCH, "none", seed=0).backbone
    members = [
        Classifier(backbone, build_head(torch.randn(5, backbone.num_features), 3, dropout=0.2, seed=s)) for s in (0, 1)
    ]
    save_model(
        Ensemble([copy.deepcopy(m) for m in members]), Card(ARCH, 0.2, "fp32", 32, ("a", "b", "c"), IMAGENET), tmp_path
    )
    loaded, _ = load_model(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        each = [member.eval()(images).softmax(1) for member in members]
        torch.testing.assert_close(loaded.eval()(images).softmax(1), (each[0] + each[1]) / 2)
    assert not torch.allclose(each[0], each[1], atol=1e-3)
