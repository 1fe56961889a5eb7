"""Learners that see images: sizes that grow, groups that open with the cycles, and what is not computed again."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from pipeline.files import write_json
from pipeline.learning.batch_size import epoch_sizes, first_size
from pipeline.learning.image_learners import ImageSources, head_behind_backbone, whole_model, with_known_start
from pipeline.learning.loop import Learner
from pipeline.learning.snapshots import mean_state
from pipeline.learning.sources import FrozenFeatures, LazyImages, MicroBatch, TensorBatches, in_order
from pipeline.model.backbone import build_backbone
from pipeline.model.batch_norm import batch_norms
from pipeline.model.card import IMAGENET, Card
from pipeline.model.classifier import Classifier, load_classifier, save_model
from pipeline.model.compute import Computation, forward, predict
from pipeline.model.head import Head
from pipeline.model.tensors import save_tensors
from pipeline.settings import Runtime, read_settings
from stages.unfreeze import first_cycle
from tests.conftest import Compose

ARCH = "shufflenet_v2_x0_5"


def images_at(size: int) -> TensorBatches:
    return TensorBatches(torch.zeros(5, 3, size, size), torch.zeros(5, dtype=torch.long))


def sources(*sizes: int) -> ImageSources:
    images = images_at(sizes[-1])
    return ImageSources(images, images, images, sizes=sizes, plain_rows=range(5))


class Unseen(TensorBatches):
    """Images that must not be drawn."""

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[MicroBatch]:
        raise AssertionError(f"images were drawn: {order}, {draw}")


def valid_logits(learner: Learner) -> torch.Tensor:
    return predict(learner, in_order(learner.valid, learner.micro_batch_size))[0]


def unfrozen(
    folder: Path, *, schedule: str = "all", batch_norm: str = "frozen", optimizer: str = "sgd", precision: str = "fp32"
) -> Path:
    folder.mkdir(exist_ok=True)
    backbone = build_backbone(ARCH)
    model = Classifier(backbone, Head(backbone.num_features, 2, dropout=0.0))
    save_model(model, Card(ARCH, 0.0, precision, 32, ("a", "b"), IMAGENET), folder)
    groups = [{"lr_factor": 1.0, "first_cycle": first_cycle(i, 4, schedule)} for i in range(4)]
    write_json(folder / "plan.json", {"groups": groups, "batch_norm": batch_norm, "optimizer": optimizer})
    return folder


def precomputed(folder: Path, pixels: torch.Tensor, *, precision: str = "fp32") -> Path:
    """A folder with an unfrozen model, its parts, and the activations of `pixels` as both splits."""
    unfrozen(folder, precision=precision)
    model, _ = load_classifier(folder)
    save_tensors(model.backbone.state_dict(), folder / "backbone.safetensors")
    save_tensors(model.head.state_dict(), folder / "head.safetensors")
    computation = Computation(model.backbone.eval(), torch.device("cpu"), precision, 8)
    with torch.no_grad():
        features = forward(computation, pixels)
    targets = torch.zeros(len(pixels), dtype=torch.long)
    for split in ("train", "valid"):
        save_tensors({"activations": features[None], "targets": targets}, folder / f"activations-{split}.safetensors")
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_stored_activations_tell_is_not_computed_again(tmp_path: Path, runtime: Runtime, precision: str) -> None:
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    folder, targets = precomputed(tmp_path, pixels, precision=precision), torch.zeros(5, dtype=torch.long)
    seen, unseen = TensorBatches(pixels, targets), Unseen(pixels, targets)
    images = ImageSources(seen, unseen, unseen, sizes=(16, 32), plain_rows=[3, 0])
    images = dataclasses.replace(images, train_plain=Unseen(pixels[[3, 0]], targets[[3, 0]]))
    measured = dataclasses.replace(images, train_plain=TensorBatches(pixels[[3, 0]], targets[[3, 0]]), valid=seen)

    whole = whole_model(folder, measured, runtime, micro_batch_size=8)
    expected = [predict(whole, in_order(each, 8))[0] for each in (whole.train_plain, whole.valid)]
    head = head_behind_backbone(folder, folder, images, runtime, micro_batch_size=8)
    start = with_known_start(whole_model(folder, images, runtime, micro_batch_size=8), folder, images).start
    for found in (
        [predict(head, in_order(each, 8))[0] for each in (head.train_plain, head.valid)],
        [start["train"], start["valid"]],
    ):
        for logits, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(predict(head, in_order(head.train, 8))[0], predict(whole, in_order(whole.train, 8))[0])

    other = dataclasses.replace(measured, sizes=(32, 16))
    learner = head_behind_backbone(folder, folder, other, runtime, micro_batch_size=8)
    torch.testing.assert_close(predict(learner, in_order(learner.valid, 8))[0], expected[1], rtol=1e-5, atol=1e-5)
    assert isinstance(learner.valid, FrozenFeatures)
    assert with_known_start(whole, folder, other).start == {}


def test_sizes_follow_the_epochs_and_one_is_held_at_a_time() -> None:
    opened: list[int] = []

    def open_at(size: int) -> TensorBatches:
        opened.append(size)
        return images_at(size)

    images = LazyImages(torch.zeros(5, dtype=torch.long), [16, 24, 24], open_at, names=list("abcde"))
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
    images = sources(32)
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
    images = ImageSources(shown, shown, shown, sizes=(32,), plain_rows=range(5))
    folder = precomputed(tmp_path, pixels)
    for learner in (
        head_behind_backbone(folder, folder, images, runtime, micro_batch_size=8),
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
    folder = unfrozen(tmp_path)
    card = (folder / "model.json").read_text().replace(ARCH, "vit_b_16")
    (folder / "model.json").write_text(card)
    images = sources(16, 32)
    with pytest.raises(ValueError, match="image_size=16 does not fit vit_b_16, which was built for 32"):
        whole_model(folder, images, runtime, micro_batch_size=4)
