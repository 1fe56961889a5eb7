"""Every torchvision classifier as a backbone: same features as the original, groups that cover it."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.model.backbone import architectures, build_backbone, check_architecture, check_image_size
from pipeline.model.batch_norm import batch_norms
from pipeline.model.classifier import Classifier
from pipeline.model.head import Head
from pipeline.model.layer_groups import freeze_to, split_layer_groups
from pipeline.vision import models

SMALL = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5")
HUGE = 60e6
"""Parameters above which an architecture is left to its smaller siblings of the same family."""


def small_enough() -> list[Any]:
    """All architectures that are not huge. The smallest of each of torchvision's modules is tested by default."""
    sizes = {a: models.get_model_weights(a).DEFAULT.meta["num_params"] for a in architectures()}
    modules: dict[str, list[str]] = {}
    for arch in sorted(sizes, key=sizes.__getitem__):
        modules.setdefault(models.get_model_builder(arch).__module__, []).append(arch)
    smallest = {archs[0] for archs in modules.values()}
    few = [a for a, n in sizes.items() if n < HUGE]
    return [a if a in smallest else pytest.param(a, marks=pytest.mark.slow) for a in few]


@pytest.mark.parametrize("arch", SMALL)
def test_features_are_what_torchvisions_last_layer_sees(arch: str) -> None:
    backbone = build_backbone(arch, image_size=64).eval()
    original = models.get_model_builder(arch)(weights=None).eval()
    original.load_state_dict(backbone.network.state_dict(), strict=False)
    seen: list[torch.Tensor] = []
    last = [m for m in original.modules() if isinstance(m, nn.Linear)][-1] if arch != "squeezenet1_1" else None
    if last is not None:
        last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    else:
        original.features.register_forward_hook(lambda _, __, out: seen.append(out.mean((2, 3))))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        original(images)
        features = backbone(images)
    assert features.shape == (2, backbone.num_features)
    torch.testing.assert_close(features, seen[0])


@pytest.mark.parametrize("arch", small_enough())
def test_layer_groups_hold_each_parameter_once_in_order_of_depth(arch: str) -> None:
    with torch.device("meta") if not arch.startswith("regnet") else torch.device("cpu"):
        backbone = build_backbone(arch)
        model = Classifier(backbone, Head(backbone.num_features, 5, dropout=0.0))
    order = {name: i for i, (name, _) in enumerate(model.named_parameters())}
    for num_groups in (2, 3, 4):
        groups = split_layer_groups(model, num_groups)
        names = [n for g in groups for n in g.parameters]
        assert len(groups) == num_groups
        assert sorted(names) == sorted(order)
        assert all(g.parameters for g in groups)
        owned = [[order[n] for m in g.modules for n in g.parameters if n.startswith(f"{m}.")] for g in groups]
        assert all(max(a) < min(b) for a, b in pairwise(owned))
        assert set(groups[-1].parameters) == {n for n in order if n.startswith("head.")}


def test_resnet_is_cut_where_the_classic_recipe_cuts_it() -> None:
    backbone = build_backbone("resnet18")
    groups = split_layer_groups(Classifier(backbone, Head(512, 2, dropout=0.0)), 3)
    assert list(groups[0].modules)[-1].endswith("layer2.1")
    assert next(iter(groups[1].modules)).endswith("layer3.0")


def test_freezing_stops_gradients_below() -> None:
    backbone = build_backbone("shufflenet_v2_x0_5")
    model = Classifier(backbone, Head(backbone.num_features, 2, dropout=0.0))
    groups = split_layer_groups(model, 3)
    freeze_to(groups, 1, batch_norm=True)
    assert [{p.requires_grad for p in g.parameters.values()} for g in groups] == [{False}, {True}, {True}]
    freeze_to(groups, 1, batch_norm=False)
    norms = {id(p) for m in batch_norms(model) for p in m.parameters()}
    assert norms
    for i, group in enumerate(groups):
        assert all(p.requires_grad == (i >= 1 and id(p) not in norms) for p in group.parameters.values())


def test_too_many_groups_are_refused() -> None:
    backbone = build_backbone("shufflenet_v2_x0_5")
    with pytest.raises(ValueError, match=r"unfreeze\.num_groups=99 does not fit shufflenet_v2_x0_5: from 2 to"):
        split_layer_groups(Classifier(backbone, Head(backbone.num_features, 2, dropout=0.0)), 99)


def test_unknown_architectures_and_sizes_are_refused_with_a_fix() -> None:
    with pytest.raises(ValueError, match=r"model\.arch=resnt18 .* nearest: resnet18"):
        check_architecture("resnt18")
    with pytest.raises(ValueError, match="multiple of 16"):
        check_image_size("vit_b_16", 100)
    with pytest.raises(ValueError, match="75 or more"):
        check_image_size("inception_v3", 64)
    with pytest.raises(ValueError, match="was built for 224 and cannot change its size"):
        check_image_size("maxvit_t", 448, built_for=224)
    check_image_size("resnet18", 17, built_for=224)
