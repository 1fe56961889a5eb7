"""Precomputed views: what the frozen backbone makes of the policy's own views, also after a kill."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing
from pipeline.data.images import normalise
from pipeline.data.manifest import read_manifest
from pipeline.files import read_json
from pipeline.harness.execute import StageFolders, execute
from pipeline.harness.fingerprints import write_fingerprints
from pipeline.harness.stage import Metrics
from pipeline.learning.activation_learners import first_head_on_activations, random_head_on_activations
from pipeline.learning.sources import ViewBatches
from pipeline.model.card import load_card
from pipeline.model.classifier import assemble
from pipeline.model.growing import GrowingTensor
from pipeline.model.tensors import read_tensors, save_tensors
from pipeline.settings import Runtime, read_settings
from pipeline.vision import models, v2
from stages.precompute import STAGE
from tests.conftest import TINY, Compose, Run

pytestmark = pytest.mark.xdist_group("recipe")
FRAMING = Framing(32, "zoom", "white")


@pytest.fixture(scope="module")
def with_views(compose_conf: Compose, pictures: Path) -> dict[str, Any]:
    return compose_conf(*TINY, f"data.root={pictures}", "precompute.views=2", "augment=side_on")


def precompute(params: dict[str, Any], recipe: Run, folder: Path, runtime: Runtime) -> Metrics:
    write_fingerprints(read_settings(params, source="x"), folder / "config", ())
    inputs = {"ingest": recipe.folder("ingest"), "config": folder / "config"}
    return execute(STAGE, params, runtime, StageFolders(inputs, folder / "precompute", folder / ".unfreeze"))


@pytest.fixture(scope="module")
def made(with_views: dict[str, Any], recipe: Run, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    precompute(with_views, recipe, folder, runtime)
    return folder / "precompute"


def test_activations_of_views_are_the_frozen_backbones_output_on_the_policys_views(
    made: Path, recipe: Run, with_views: dict[str, Any]
) -> None:
    manifest, model = read_manifest(recipe.folder("ingest")), assemble(made, recipe.folder("head_train")).eval()
    policy = Policy(read_settings(with_views, source="x").augment, FRAMING)
    stored = read_tensors(made / "activations-train.safetensors")["activations"]
    assert stored.shape[:2] == (3, len(manifest.of("train")))
    for i, sample in enumerate(manifest.of("train")[:4]):
        base = policy.decode_base(manifest.root / sample.path)
        views = [policy.view(base, seed=(0, "precompute", view, sample.sha256)) for view in (1, 2)]
        pixels = torch.stack([v2.functional.pil_to_tensor(view) for view in views])
        with torch.no_grad():
            torch.testing.assert_close(
                stored[1:, i], model.backbone(normalise(pixels, load_card(made).normalisation)), rtol=1e-4, atol=1e-5
            )


def test_the_plain_view_and_valid_are_as_without_views(made: Path, recipe: Run) -> None:
    without = recipe.folder("precompute")
    for split in ("train", "valid"):
        name = f"activations-{split}.safetensors"
        assert torch.equal(read_tensors(made / name)["activations"][0], read_tensors(without / name)["activations"][0])
    assert len(read_tensors(made / "activations-valid.safetensors")["activations"]) == 1


def test_the_head_sees_another_view_in_each_epoch_and_is_measured_on_plain_ones(made: Path, runtime: Runtime) -> None:
    learner = first_head_on_activations(made, runtime, micro_batch_size=8)
    stored = read_tensors(made / "activations-train.safetensors")
    assert isinstance(learner.train, ViewBatches)
    order = [[0, 1, 2], [5, 4]]
    for epoch in range(4):
        batches = list(learner.train.batches(order, draw=epoch))
        for batch, (inputs, targets) in zip(order, batches, strict=True):
            want = torch.stack([stored["activations"][(i + epoch) % 3, i] for i in batch])
            assert torch.equal(inputs, want)
            assert torch.equal(targets, stored["targets"][batch])
    plain = torch.cat([x for x, _ in learner.train_plain.batches(order, draw=3)])
    assert torch.equal(plain, stored["activations"][0, [0, 1, 2, 5, 4]])


@pytest.mark.parametrize("killed_after", [9])
def test_a_killed_precompute_goes_on_and_ends_in_the_same_bytes(
    killed_after: int,
    made: Path,
    with_views: dict[str, Any],
    recipe: Run,
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, appended = GrowingTensor.append, 0

    def append(self: GrowingTensor, rows: torch.Tensor) -> None:
        nonlocal appended
        if appended == killed_after:
            raise KeyboardInterrupt
        appended += 1
        original(self, rows)

    monkeypatch.setattr(GrowingTensor, "append", append)
    with pytest.raises(KeyboardInterrupt):
        precompute(with_views, recipe, tmp_path, runtime)
    killed_after = -1
    precompute(with_views, recipe, tmp_path, runtime)
    assert appended == 3 * 6 + 2  # six batches of train in three views, two of valid: none was computed again
    for split in ("train", "valid"):
        name = f"activations-{split}.safetensors"
        assert (tmp_path / "precompute" / name).read_bytes() == (made / name).read_bytes()


def test_views_without_augmentation_are_refused(
    recipe: Run, compose_conf: Compose, pictures: Path, tmp_path: Path, runtime: Runtime
) -> None:
    params = compose_conf(*TINY, f"data.root={pictures}", "precompute.views=1", "augment=none")
    with pytest.raises(ValueError, match=r"precompute\.views=1 has no effect without augmentation"):
        precompute(params, recipe, tmp_path, runtime)


@pytest.mark.parametrize(
    ("head_init", "begins"),
    [("auto", "what the weights' own 9 classes say of ours"), ("random", "random weights")],
)
def test_the_head_begins_with_the_weights_own_classes_where_they_have_any(
    head_init: str,
    begins: str,
    recipe: Run,
    compose_conf: Compose,
    pictures: Path,
    tmp_path: Path,
    runtime: Runtime,
) -> None:
    arch = "shufflenet_v2_x0_5"
    save_tensors(models.get_model_builder(arch)(weights=None, num_classes=9).state_dict(), tmp_path / "w.safetensors")
    own = [f"model.arch={arch}", f"model.weights={tmp_path / 'w.safetensors'}", f"model.head_init={head_init}"]
    params = compose_conf(*TINY, f"data.root={pictures}", *own)
    made = tmp_path / "precompute"
    assert precompute(params, recipe, tmp_path, runtime)["head_begins"] == begins
    plain = read_tensors(made / "activations-train.safetensors")["activations"][0]
    first = first_head_on_activations(made, runtime, micro_batch_size=8).model.eval()
    random = random_head_on_activations(made, runtime, seed=params["seed"], micro_batch_size=8).model.eval()
    with torch.no_grad():
        assert torch.equal(first(plain), random(plain)) == (head_init == "random")


def test_weights_without_classes_leave_the_head_at_random(recipe: Run) -> None:
    assert read_json(recipe.folder("precompute") / "metrics.json")["head_begins"] == "random weights"
