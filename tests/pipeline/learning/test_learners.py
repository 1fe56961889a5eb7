"""Learners that see images: sizes that grow with the epochs, and groups that open with the cycles."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from pipeline.files import write_json
from pipeline.learning.batch_size import epoch_sizes, first_size
from pipeline.learning.image_learners import ImageSources, head_on_backbone, whole_model
from pipeline.learning.loop import Learner
from pipeline.learning.snapshots import mean_state
from pipeline.learning.sources import GrowingImages, TensorBatches, in_order
from pipeline.model.backbone import build_backbone
from pipeline.model.batch_norm import batch_norms
from pipeline.model.card import IMAGENET, Card
from pipeline.model.classifier import Classifier, load_classifier, save_model
from pipeline.model.compute import predict
from pipeline.model.head import Head
from pipeline.model.tensors import save_tensors
from pipeline.settings import Runtime, read_settings
from stages.unfreeze import first_cycle
from tests.conftest import Compose

ARCH = "shufflenet_v2_x0_5"


def images_at(size: int) -> TensorBatches:
    return TensorBatches(torch.zeros(5, 3, size, size), torch.zeros(5, dtype=torch.long))


def valid_logits(learner: Learner) -> torch.Tensor:
    return predict(learner, in_order(learner.valid, learner.micro_batch_size))[0]


def unfrozen(folder: Path, *, schedule: str, batch_norm: str, optimizer: str = "sgd") -> Path:
    folder.mkdir(exist_ok=True)
    backbone = build_backbone(ARCH)
    model = Classifier(backbone, Head(backbone.num_features, 2, dropout=0.0))
    save_model(model, Card(ARCH, 0.0, "fp32", 32, ("a", "b"), IMAGENET), folder)
    groups = [{"lr_factor": 1.0, "first_cycle": first_cycle(i, 4, schedule)} for i in range(4)]
    write_json(folder / "plan.json", {"groups": groups, "batch_norm": batch_norm, "optimizer": optimizer})
    return folder


def test_sizes_follow_the_epochs_and_one_is_held_at_a_time() -> None:
    opened: list[int] = []

    def open_at(size: int) -> TensorBatches:
        opened.append(size)
        return images_at(size)

    images = GrowingImages(torch.zeros(5, dtype=torch.long), [16, 24, 24], open_at, names=list("abcde"))
    sizes = [next(iter(images.batches([[0, 3]], draw=epoch)))[0].shape[-1] for epoch in (0, 1, 2, 3)]
    assert sizes == [16, 24, 24, 24]
    assert opened == [16, 24]


def test_each_cycles_size_lasts_for_its_epochs(compose_conf: Compose) -> None:
    train = read_settings(compose_conf(), source="x").full_train
    assert epoch_sizes(dataclasses.replace(train, image_size=(16, 24, 32)), 64) == [16, 24, 24, 32, 32, 32, 32]
    assert epoch_sizes(train, 64) == [64] * 7
    assert [first_size(s, 64) for s in (None, 48, (16, 24))] == [64, 48, 16]


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize(("schedule", "frozen"), [("all", [0, 0, 0]), ("gradual", [2, 1, 0])])
def test_groups_open_from_the_head_down(
    tmp_path: Path, runtime: Runtime, schedule: str, frozen: list[int], batch_norm: str
) -> None:
    images = ImageSources(images_at(32), images_at(32), images_at(32), sizes=(32,))
    folder = unfrozen(tmp_path, schedule=schedule, batch_norm=batch_norm)
    learner = whole_model(folder, images, runtime, micro_batch_size=4)
    norms = {id(p) for m in batch_norms(learner.model) for p in m.parameters()}
    for cycle, num_frozen in enumerate(frozen, start=1):
        learner.begin_cycle(cycle)
        learner.set_mode()
        for i, group in enumerate(learner.groups):
            for p in group.parameters:
                assert p.requires_grad == (i >= num_frozen and (batch_norm == "train" or id(p) not in norms))
        assert all(m.training == m.weight.requires_grad for m in batch_norms(learner.model))
        assert any(m.training for m in batch_norms(learner.model)) == (batch_norm == "train")


def test_means_of_heads_predict_means_of_logits_and_whole_models_need_not(tmp_path: Path, runtime: Runtime) -> None:
    """Checks `Learner.linear` of each learner by brute force."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(5, 3, 32, 32, generator=generator)
    shown = TensorBatches(pixels, torch.zeros(5, dtype=torch.long))
    images = ImageSources(shown, shown, shown, sizes=(32,))
    folder = unfrozen(tmp_path, schedule="all", batch_norm="frozen")
    model, _ = load_classifier(folder)
    save_tensors(model.backbone.state_dict(), folder / "backbone.safetensors")
    save_tensors(model.head.state_dict(), folder / "head.safetensors")
    for learner in (
        head_on_backbone(folder, folder, images, runtime, micro_batch_size=8),
        whole_model(folder, images, runtime, micro_batch_size=8),
    ):
        states, logits = [], []
        for _ in range(2):
            with torch.no_grad():
                for parameter in (p for group in learner.groups for p in group.parameters):
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
            states.append(copy.deepcopy(learner.model.state_dict()))
            logits.append(valid_logits(learner))
        learner.model.load_state_dict(mean_state(states))
        assert torch.allclose(valid_logits(learner), torch.stack(logits).mean(0), atol=1e-5) == learner.linear


def test_an_architecture_of_fixed_size_is_refused_other_sizes(tmp_path: Path, runtime: Runtime) -> None:
    folder = unfrozen(tmp_path, schedule="all", batch_norm="frozen")
    card = (folder / "model.json").read_text().replace(ARCH, "vit_b_16")
    (folder / "model.json").write_text(card)
    images = ImageSources(images_at(32), images_at(32), images_at(32), sizes=(16, 32))
    with pytest.raises(ValueError, match="image_size=16 does not fit vit_b_16, which was built for 32"):
        whole_model(folder, images, runtime, micro_batch_size=4)
