"""Training writes a file that loads, and the same weights after a kill."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from pipeline.model.backbone import build_backbone
from pipeline.model.tensors import read_tensors
from pretraining.glyphs import Atlas
from pretraining.render import RenderSettings
from pretraining.settings import WEIGHTS, load_settings
from pretraining.train import Pretraining, TrainSettings, train, write_weights


@pytest.fixture
def settings() -> TrainSettings:
    return dataclasses.replace(
        load_settings(TrainSettings, "train"),
        arch="squeezenet1_1",
        num_epochs=2,
        epoch_size=32,
        batch_size=16,
        held_out_size=16,
    )


def test_training_writes_a_file_that_loads(
    atlas: Atlas, drawing: RenderSettings, settings: TrainSettings, tmp_path: Path
) -> None:
    pretraining = train(settings, drawing, atlas=atlas, scratch=tmp_path)
    write_weights(pretraining, drawing, atlas=atlas, folder=tmp_path / "weights")
    tensors = read_tensors(tmp_path / "weights" / "squeezenet1_1.safetensors")
    build_backbone("squeezenet1_1").network.load_state_dict(tensors)
    card = json.loads((tmp_path / "weights" / "squeezenet1_1.json").read_text())
    assert card["num_classes"] == atlas.num_classes
    assert card["num_images"] == 64


def test_a_killed_run_ends_in_the_same_weights(
    atlas: Atlas,
    drawing: RenderSettings,
    settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = train(settings, drawing, atlas=atlas, scratch=whole).model.state_dict()

    step, steps = Pretraining.step, 0

    def killed_in_second_epoch(self: Pretraining, images: torch.Tensor, labels: torch.Tensor) -> float:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return step(self, images, labels)

    monkeypatch.setattr(Pretraining, "step", killed_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(settings, drawing, atlas=atlas, scratch=killed)
    monkeypatch.setattr(Pretraining, "step", step)
    resumed = train(settings, drawing, atlas=atlas, scratch=killed).model.state_dict()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_of_other_settings_is_not_resumed(
    atlas: Atlas, drawing: RenderSettings, settings: TrainSettings, tmp_path: Path
) -> None:
    train(settings, drawing, atlas=atlas, scratch=tmp_path)
    fresh = Pretraining(settings, num_classes=atlas.num_classes)
    assert not fresh.restore(tmp_path / "squeezenet1_1.pt", identity="another")
    assert fresh.epoch == 0


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda p: p.stem)
def test_shipped_weights_load_and_are_small(path: Path) -> None:
    assert path.stat().st_size <= 24e6
    build_backbone(path.stem).network.load_state_dict(read_tensors(path))


def test_wrong_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {arch: resnet18, speed: 3}")
    with pytest.raises(ValueError, match=r"missing .*unknown \['speed'\]"):
        load_settings(TrainSettings, "train", path=tmp_path / "params.yaml")
