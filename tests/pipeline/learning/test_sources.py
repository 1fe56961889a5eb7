"""Batch sources: order, even parts, and the views that epochs show."""

import subprocess
import sys

import pytest
import torch

from pipeline.learning.sources import TensorBatches, ViewBatches, first_images, in_order, train_batches
from tests.conftest import PROJECT

SOURCE = TensorBatches(torch.arange(10.0)[:, None], torch.arange(10) % 3)


def test_in_order_gives_every_sample_once_in_even_batches() -> None:
    batches = list(in_order(SOURCE, 4))
    assert [len(targets) for _, targets in batches] == [3, 3, 4]
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), SOURCE.inputs)
    assert torch.equal(torch.cat([targets for _, targets in batches]), SOURCE.targets)


def test_in_order_passes_the_draw_on() -> None:
    views = ViewBatches(torch.stack([SOURCE.inputs, SOURCE.inputs + 100]), SOURCE.targets)
    [(inputs, _)] = in_order(views, 10, draw=1)
    assert inputs[:, 0].tolist() == [100, 1, 102, 3, 104, 5, 106, 7, 108, 9]


def test_training_batches_are_cut_evenly_into_parts() -> None:
    batches = list(train_batches(SOURCE, [[9, 8, 7, 6, 5], [0, 1]], micro_batch_size=3, draw=0))
    assert [[inputs[:, 0].tolist() for inputs, _ in batch.parts] for batch in batches] == [
        [[9, 8], [7, 6, 5]],
        [[0, 1]],
    ]


def test_first_images_are_all_if_there_are_fewer() -> None:
    assert first_images(SOURCE, 3)[1].tolist() == [0, 1, 2]
    assert len(first_images(SOURCE, 99)[1]) == 10


@pytest.mark.slow
def test_learners_on_activations_load_without_torchvision_and_pictures() -> None:
    code = (
        "import sys, pipeline.learning.activation_learners, pipeline.learning.training, pipeline.learning.lr_results; "
        "print([m for m in ('torchvision', 'matplotlib', 'rich', 'pipeline.report') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, text=True, stdout=subprocess.PIPE)
    assert done.stdout.strip() == "[]"
