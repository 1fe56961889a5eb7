"""timm's architectures as backbones, with random weights: the cut, the layer groups, the sizes, the weights."""

import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.data.normalisation import Normalisation
from pipeline.harness.fingerprints import fingerprint_weights
from pipeline.learning.optimizers import TIMM_ADAMW_FAMILIES, choose_optimizer
from pipeline.model.backbone import build_backbone, check_architecture, check_image_size, interpolation_of, trained_size
from pipeline.model.card import IMAGENET, Card, load_card
from pipeline.model.classifier import Classifier, check_sizes, load_model, save_model
from pipeline.model.head import build_head
from pipeline.model.layer_groups import split_layer_groups
from pipeline.model.tensors import read_tensors, save_tensors
from pipeline.model.timm_backbone import timm_config, timm_family
from pipeline.model.timm_weights import FILE
from pipeline.model.weights import Pretrained, load_pretrained
from pipeline.settings import SettingsError
from tests.conftest import Compose

timm = pytest.importorskip("timm")

FAMILIES = {  # a small one of each, and the optimizer that suits it
    "test_resnet": "sgd",
    "test_efficientnet": "sgd",
    "test_nfnet": "sgd",
    "mobilenetv3_small_050": "sgd",
    "regnetx_002": "sgd",
    "densenet121": "sgd",
    "test_convnext": "adamw",
    "test_vit": "adamw",
    "deit_tiny_patch16_224": "adamw",
    "swin_tiny_patch4_window7_224": "adamw",
    "test_coatnet": "adamw",
    "test_maxvit": "adamw",
    "mobilevit_xxs": "adamw",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_what_the_last_layer_sees(name: str, tmp_path: Path) -> None:
    """The original's logits are those of the removed layer on the backbone's features."""
    size = 64 if timm.get_pretrained_cfg(name).fixed_input_size else None
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    original = timm.create_model(name, img_size=size).eval()
    whole = original.state_dict()
    pretrained = _load(tmp_path, f"timm/{name}", whole)
    backbone = pretrained.backbone.eval()
    assert pretrained.classifier is not None
    with torch.no_grad():
        features = backbone(images)
        torch.testing.assert_close(pretrained.classifier(features), original(images))
    assert features.shape == (2, backbone.num_features)
    own = backbone.network.state_dict()
    assert set(whole) - set(own) == {f"{backbone.cut[0]}.{p}" for p in ("weight", "bias")}
    assert all(torch.equal(own[n], whole[n]) for n in own)


@pytest.mark.parametrize("name", [*FAMILIES, "beit_base_patch16_224", "hiera_tiny_224"])
def test_layer_groups_hold_each_parameter_once_and_run_one_after_the_other(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(f"timm/{name}")
        model = Classifier(backbone, build_head(torch.zeros(1, backbone.num_features), 5, dropout=0.0, seed=0)).eval()
    size = trained_size(f"timm/{name}")
    assert size is not None
    order = _order_of_calls(model, torch.empty(1, 3, size, size, device="meta"))
    for num_groups in (2, 3, 5):
        groups = split_layer_groups(model, num_groups)
        assert sorted(n for g in groups for n in g.parameters) == sorted(n for n, _ in model.named_parameters())
        assert all(g.parameters for g in groups)
        ran = [[i for i, n in enumerate(order) if n.startswith(tuple(f"{m}." for m in g.modules))] for g in groups]
        assert all(max(a) < min(b) for a, b in pairwise(ran))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_auto_chooses_the_optimizer_by_family(name: str) -> None:
    assert choose_optimizer("auto", f"timm/{name}") == FAMILIES[name]


def test_families_are_those_of_timm() -> None:
    assert set(timm.list_modules()) >= TIMM_ADAMW_FAMILIES
    assert timm_family("timm/convnext_tiny.in12k_ft_in1k") == "convnext"
    assert choose_optimizer("sgd", "timm/test_vit") == "sgd"


def test_what_images_must_be_like_is_read_from_timm() -> None:
    backbone = build_backbone("timm/test_vit")
    assert backbone.normalisation == Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert build_backbone("timm/regnetx_002").normalisation == IMAGENET
    assert interpolation_of("timm/convnext_tiny.in12k_ft_in1k") == "bicubic"
    assert interpolation_of("timm/densenet121.tv_in1k") == "bicubic"
    assert interpolation_of("timm/dla46_c.in1k") == "bilinear" == interpolation_of("resnet18")
    assert trained_size("timm/test_vit") == 160
    assert trained_size("resnet18") is None


def test_two_tokens_with_a_layer_each_give_the_mean_of_their_features(tmp_path: Path) -> None:
    arch, images = "timm/deit_tiny_distilled_patch16_224", torch.zeros(2, 3, 32, 32)
    original = timm.create_model(arch.removeprefix("timm/"), img_size=32).eval()
    pretrained = _load(tmp_path, arch, original.state_dict(), image_size=32)
    assert pretrained.backbone.cut == ("head", "head_dist")
    assert pretrained.classifier is None
    with torch.no_grad():
        tokens = original.forward_features(images)[:, :2]
        torch.testing.assert_close(pretrained.backbone.eval()(images), tokens.mean(1))


def test_names_sizes_and_ends_that_do_not_fit_are_refused_with_a_fix() -> None:
    with pytest.raises(ValueError, match=r"timm/convnext_tinny is not a classifier of timm .* nearest: timm/convnext_"):
        check_architecture("timm/convnext_tinny")
    for name in ("hf_hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "hf-hub:someone/model"):
        with pytest.raises(ValueError, match="is not a classifier of timm"):
            check_architecture(f"timm/{name}")
    with pytest.raises(ValueError, match=r"image_size=100 does not fit timm/test_coatnet .*were made for 160"):
        check_image_size("timm/test_coatnet", 100)
    with pytest.raises(ValueError, match="was built for 224 and cannot change its size"):
        check_sizes(Card("timm/test_vit", 0.0, "fp32", 224, ("a",), IMAGENET), [224, 160])
    check_sizes(Card("timm/test_resnet", 0.0, "fp32", 224, ("a",), IMAGENET), [224, 100])
    with pytest.raises(ValueError, match=r"layers of different widths \(\[96, 192\]\)"):
        build_backbone("timm/crossvit_tiny_240")


def test_checking_a_size_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    check_image_size("timm/test_vit", 64)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_that_are_no_classifier_start_no_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ImageNet's classes, or of the user's own: answers. A projection, as CLIP's, is published with other widths."""
    for num_classes in (1000, 7):
        found = _load(
            tmp_path, "timm/test_resnet", timm.create_model("test_resnet", num_classes=num_classes).state_dict()
        )
        assert found.classifier is not None
        assert found.classifier.out_features == num_classes
    published = dataclasses.replace(timm_config("timm/test_resnet"), num_classes=7)
    monkeypatch.setattr("pipeline.model.timm_weights.timm_config", lambda _: published)
    network = timm.create_model("test_resnet", num_classes=7)
    assert _load(tmp_path, "timm/test_resnet", network.state_dict()).classifier is None


def test_a_file_without_its_last_layer_is_loaded_and_one_of_another_architecture_is_refused(tmp_path: Path) -> None:
    network = build_backbone("timm/test_convnext").network
    save_tensors(network.state_dict(), tmp_path / "cut.safetensors")
    pretrained = load_pretrained("timm/test_convnext", str(tmp_path / "cut.safetensors"), seed=1)
    own = pretrained.backbone.network.state_dict()
    assert all(torch.equal(own[n], t) for n, t in network.state_dict().items())
    assert pretrained.classifier is None
    with pytest.raises(ValueError, match=r"weights of another architecture than model\.arch=timm/test_convnext2: .*"):
        load_pretrained("timm/test_convnext2", str(tmp_path / "cut.safetensors"), seed=1)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="others can run code"):
        load_pretrained("timm/test_convnext", str(tmp_path / "w.pth"), seed=1)


def test_position_embeddings_are_fitted_to_the_size(tmp_path: Path) -> None:
    save_tensors(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    backbone = load_pretrained("timm/test_vit", str(tmp_path / "w.safetensors"), seed=0, image_size=96).backbone
    with torch.no_grad():
        assert backbone.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 64)


def test_pretrained_weights_come_from_the_hubs_cache_with_their_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch, page = "timm/test_vit.r160_in1k", "https://huggingface.co/timm/test_vit.r160_in1k"
    save_tensors(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    _fill_cache(tmp_path / "hub", "timm/test_vit.r160_in1k", tmp_path / "w.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    pretrained = load_pretrained(arch, "pretrained", seed=0)
    assert pretrained.source == f"{page} at revision 1234abcd"
    assert pretrained.licence == "apache-2.0"
    assert pretrained.classifier is not None
    assert pretrained.classifier.out_features == 1000
    tensors = read_tensors(tmp_path / "w.safetensors")
    assert torch.equal(pretrained.classifier.weight, tensors["head.weight"])


def test_without_a_network_the_error_names_the_file_and_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    url = "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    with pytest.raises(ConnectionError, match=f"{url} cannot be downloaded; .* set model.weights to its path"):
        load_pretrained("timm/test_vit.r160_in1k", "pretrained", seed=0)


def test_weights_that_only_other_formats_hold_are_refused() -> None:
    name = next(n for n in timm.list_pretrained() if not timm.get_pretrained_cfg(n).hf_hub_id)
    with pytest.raises(ValueError, match=rf"no safetensors weights for model\.arch=timm/{name}"):
        load_pretrained(f"timm/{name}", "pretrained", seed=0)


def test_a_stored_model_predicts_the_same(tmp_path: Path) -> None:
    backbone = build_backbone("timm/test_vit", image_size=64)
    model = Classifier(backbone, build_head(torch.randn(9, backbone.num_features), 2, dropout=0.1, seed=0)).eval()
    card = Card("timm/test_vit", 0.1, "fp32", 64, ("a", "b"), backbone.normalisation, "somewhere", "apache-2.0")
    save_model(model, card, tmp_path)
    loaded, again = load_model(tmp_path)
    assert again == card == load_card(tmp_path)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), model(images))


def test_settings_that_contradict_timm_are_refused(compose_conf: Compose) -> None:
    for weights in ("glyphs", "imagenet"):
        with pytest.raises(
            SettingsError, match=f"model.weights={weights} does not fit .* set model.weights=pretrained"
        ):
            compose_conf("model.arch=timm/test_vit", f"model.weights={weights}")
    with pytest.raises(SettingsError, match=r"multi_scale does not fit model\.arch=timm/vit_x, whose position embed"):
        compose_conf("model.arch=timm/vit_x", "model.weights=none", "tta_evaluate=multi_scale")
    assert compose_conf("model=timm")["model"]["weights"] == "pretrained"
    check_architecture(compose_conf("model=timm")["model"]["arch"])


def test_the_version_of_timm_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_weights("timm/test_vit", "none")
    assert before["timm"] == timm.__version__
    monkeypatch.setattr("pipeline.model.timm_name.version", lambda _: "9.9")
    assert fingerprint_weights("timm/test_vit", "none")["timm"] == "9.9"
    assert "timm" not in fingerprint_weights("resnet18", "none")


def _order_of_calls(model: nn.Module, images: torch.Tensor) -> list[str]:
    """The modules that have parameters of their own, in the order in which a forward pass reaches them."""
    called: dict[str, None] = {}

    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda *_, name=name: called.setdefault(f"{name}."))
    with torch.no_grad():
        model(images)
    return list(called)


def _load(tmp_path: Path, arch: str, tensors: dict[str, torch.Tensor], image_size: int = 64) -> Pretrained:
    save_tensors(tensors, tmp_path / "weights.safetensors")
    return load_pretrained(arch, str(tmp_path / "weights.safetensors"), seed=0, image_size=image_size)


def _fill_cache(cache: Path, repository: str, file: Path) -> None:
    """Lay `file` where the hub's client keeps what it has downloaded."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for name in ("refs", "snapshots/1234abcd"):
        (folder / name).mkdir(parents=True)
    (folder / "refs" / "main").write_text("1234abcd")
    shutil.copy(file, folder / "snapshots" / "1234abcd" / FILE)
