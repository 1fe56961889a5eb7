"""Which optimizer an architecture gets, and which of its parameters decay."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from pipeline.learning.image_learners import ImageSources, whole_model
from pipeline.learning.loop import ParameterGroup, build_optimizer, split_by_decay
from pipeline.learning.optimizers import choose_optimizer
from pipeline.model.backbone import build_backbone
from pipeline.settings import Runtime
from tests.pipeline.learning.test_learners import images_at, unfrozen


@pytest.mark.parametrize(
    ("arch", "optimizer"),
    [
        *((arch, "adamw") for arch in ("vit_b_16", "swin_t", "swin_v2_b", "maxvit_t", "convnext_tiny")),
        *((arch, "sgd") for arch in ("resnet18", "mobilenet_v2", "squeezenet1_1", "efficientnet_b0", "regnet_y_400mf")),
    ],
)
def test_auto_goes_by_architecture_and_a_name_by_itself(arch: str, optimizer: str) -> None:
    assert choose_optimizer("auto", arch) == optimizer
    assert [choose_optimizer(name, arch) for name in ("sgd", "adamw")] == ["sgd", "adamw"]


@pytest.mark.parametrize("arch", ["resnet18", "convnext_tiny", "swin_t"])
def test_weight_decay_leaves_out_biases_norms_and_layer_scales(arch: str) -> None:
    """Compared with the kinds of modules that the parameters belong to."""
    with torch.device("meta"):
        model = build_backbone(arch)
    matrices = (nn.Linear, nn.Conv2d)
    expected = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, matrices)}
    expected |= {n for n, _ in model.named_parameters() if n.endswith("position_bias_table")}  # a matrix too
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, spared = split_by_decay(list(model.parameters()))
    assert {names[id(p)] for p in decayed} == expected
    assert len(decayed) + len(spared) == len(names)
    assert all(n.endswith(("bias", "weight", "layer_scale")) for n in (names[id(p)] for p in spared))


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adamw", AdamW)])
def test_groups_keep_their_rates_and_the_last_has_the_heads(name: str, kind: type) -> None:
    early, head = nn.Linear(3, 4), nn.Linear(4, 2)
    groups = [ParameterGroup("early", list(early.parameters()), 0.1), ParameterGroup("head", [*head.parameters()], 1.0)]
    built = build_optimizer(groups, 0.5, momentum=0.8, weight_decay=0.01, name="adamw" if name == "adamw" else "sgd")
    assert isinstance(built, kind)
    found = [(g["params"][0], len(g["params"]), g["lr"], g["weight_decay"]) for g in built.param_groups]
    parts = [(early.weight, 0.05, 0.01), (early.bias, 0.05, 0.0), (head.weight, 0.5, 0.01), (head.bias, 0.5, 0.0)]
    assert all(p is q and n == 1 for (p, n, *_), (q, *_) in zip(found, parts, strict=True))
    assert [x[2:] for x in found] == [x[1:] for x in parts]


def test_a_whole_model_is_trained_by_the_optimizer_of_its_plan(tmp_path: Path, runtime: Runtime) -> None:
    images = ImageSources(images_at(32), images_at(32), images_at(32), sizes=(32,), plain_rows=range(5))
    for name in ("sgd", "adamw"):
        folder = unfrozen(tmp_path / name, schedule="all", batch_norm="frozen", optimizer=name)
        assert whole_model(folder, images, runtime, micro_batch_size=4).optimizer == name
