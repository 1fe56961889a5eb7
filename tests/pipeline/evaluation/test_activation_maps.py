"""Class-activation maps: they point at what the class depends on, in every kind of network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing
from pipeline.evaluation.activation_maps import MIN_SIDE, activation_maps
from pipeline.evaluation.tta import ImageFile
from pipeline.model.backbone import Backbone, build_backbone
from pipeline.model.card import IMAGENET
from pipeline.model.classifier import Classifier
from pipeline.model.compute import Computation
from pipeline.model.ensemble import Ensemble
from pipeline.model.head import Head
from pipeline.settings import read_settings
from tests.conftest import Compose


@pytest.fixture
def policy(compose_conf: Compose) -> Policy:
    return policy_at(32, compose_conf)


def policy_at(size: int, compose_conf: Compose) -> Policy:
    return Policy(read_settings(compose_conf("augment=none"), source="conf").augment, Framing(size, "zoom", "white"))


@pytest.fixture
def half_red(tmp_path: Path) -> ImageFile:
    """Red on the left, blue on the right."""
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, :16, 0] = pixels[:, 16:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    return ImageFile(tmp_path / "half.png", "")


class _Colours(nn.Sequential):
    """Two features: the mean of red and of blue, over 8 x 8 positions."""

    def __init__(self) -> None:
        convolution = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        nn.init.zeros_(convolution.weight)
        with torch.no_grad():
            convolution.weight[0, 0], convolution.weight[1, 2] = 1.0, 1.0
        super().__init__(convolution, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _classifier(network: nn.Module, num_features: int, arch: str = "resnet18") -> Classifier:
    head = Head(num_features, 2, dropout=0.5)
    return Classifier(Backbone(network, arch=arch, num_features=num_features, cut=()), head)


def _colours() -> Classifier:
    model = _classifier(_Colours(), 2)
    with torch.no_grad():
        model.head[2].weight.copy_(torch.eye(2))  # type: ignore[operator]
    return model


def _maps(model: nn.Module, file: ImageFile, policy: Policy, classes: tuple[int, ...] = (0, 1)) -> list[np.ndarray]:
    computation = Computation(model, torch.device("cpu"), "fp32", 8)
    return activation_maps(computation, [file] * len(classes), classes, policy, normalisation=IMAGENET)


def test_the_map_of_a_class_is_high_where_its_colour_is(half_red: ImageFile, policy: Policy) -> None:
    red, blue = _maps(_colours(), half_red, policy)
    assert red.shape == blue.shape == (8, 8)
    assert (red[:, :4] == 255).all()
    assert not red[:, 4:].any()
    assert (blue[:, 4:] == 255).all()
    assert not blue[:, :4].any()


def test_an_ensemble_has_the_mean_of_its_members_maps(half_red: ImageFile, policy: Policy) -> None:
    alone, together = (_maps(m, half_red, policy)[0] for m in (_colours(), Ensemble([_colours(), _colours()])))
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize(("arch", "size"), [("resnet18", 32), ("squeezenet1_1", 64), ("vit_b_32", 224), ("swin_t", 64)])
def test_every_kind_of_network_has_a_map(arch: str, size: int, half_red: ImageFile, compose_conf: Compose) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(arch, image_size=size)
    model = Classifier(backbone, Head(backbone.num_features, 2, dropout=0.0))
    grids = _maps(model, half_red, policy_at(size, compose_conf))
    for grid in grids:
        assert min(grid.shape) >= MIN_SIDE or arch == "swin_t"
        assert (grid.min(), grid.max()) == (0, 255)


def test_maps_change_nothing_in_the_model(half_red: ImageFile, policy: Policy) -> None:
    model = _colours()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _maps(model, half_red, policy)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_without_positions_has_an_empty_map(half_red: ImageFile, policy: Policy) -> None:
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    (grid,) = _maps(_classifier(Mean(), 3), half_red, policy, (0,))
    assert grid.tolist() == [[0]]
