"""How near our steps come to what the processor can do: beside the same model on one batch that is in memory.

`python -m benchmarks.against_fastai.limit PROJECT [--seconds 10]`, where PROJECT holds a finished run, prints images
per second as a JSON object. `train_limit` is forward, backward and the optimizer's update; `train_step` is
`full_train`'s own step, on images that are augmented anew; `forward_limit` is the frozen backbone alone. They take
turns of a step each. Precision, memory format, threads, batch and image size are those of the run. The limits check
nothing, and may use kernels that are not deterministic.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.files import read_json
from pipeline.learning.image_learners import open_images, whole_model
from pipeline.learning.loop import Learner, build_optimizer, take_step
from pipeline.learning.sources import train_batches
from pipeline.model.batches import even_batches
from pipeline.model.card import load_card
from pipeline.model.classifier import Classifier
from pipeline.model.compute import forward, prepare, to_device
from pipeline.params import load_params
from pipeline.seeds import permutation
from pipeline.settings import read_settings, with_environment

LR = 1e-5
"""So low that the weights stay finite over any number of steps."""
WARM_UP = 3
"""Steps of each kind that are not counted."""

Steps = Iterator[int]
"""Each item is the number of images of a step that was taken."""


def main() -> None:
    """Measure the model of a finished run, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each kind of step")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.project, seconds=arguments.seconds)))


def measure(project: Path, *, seconds: float) -> dict[str, float]:
    """Images per second of each kind of step."""
    learner, image_size, batch = read_learner(project), *read_sizes(project)
    kinds: dict[str, Steps] = {
        "train_limit": train_in_memory(learner, image_size, batch),
        "train_step": train_on_images(read_learner(project), batch),
        "forward_limit": forward_in_memory(learner, image_size),
    }
    images, taken, began = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0), time.monotonic()
    for turn in count():
        if turn == WARM_UP:
            images, taken, began = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0), time.monotonic()
        elif turn > WARM_UP and time.monotonic() - began > seconds * len(kinds):
            break
        for kind, steps in kinds.items():
            step = time.perf_counter()
            images[kind] += next(steps)
            taken[kind] += time.perf_counter() - step
    return {kind: images[kind] / taken[kind] for kind in kinds}


def read_learner(project: Path) -> Learner:
    """The learner of `full_train`, before its first step, with threads set as for a stage."""
    settings = read_settings(load_params(project / "params.yaml"), source="params.yaml")
    runtime, artifacts = with_environment(settings.runtime), project / "artifacts"
    prepare(runtime)
    images = open_images(
        artifacts / "ingest",
        artifacts / "augment_config",
        runtime,
        image_sizes=[settings.data.image_size],
        normalisation=load_card(artifacts / "unfreeze").normalisation,
        seed=(settings.seed, "full_train"),
    )
    return whole_model(artifacts / "unfreeze", images, runtime, micro_batch_size=settings.data.micro_batch_size)


def read_sizes(project: Path) -> tuple[int, int]:
    """Image size in pixels and batch size of the run."""
    settings = read_json(project / "artifacts" / "full_train" / "stage.json")["settings"]
    return settings["data.image_size"], settings["data.batch_size"]


def train_in_memory(learner: Learner, image_size: int, batch: int) -> Steps:
    """Forward, backward and update on one batch of random images."""
    inputs = _random_images(learner, image_size, batch)
    targets = torch.zeros(batch, dtype=torch.long, device=learner.device)
    optimizer = build_optimizer(learner.groups, LR, momentum=0.9, weight_decay=0.0, name=learner.optimizer)
    while True:
        learner.set_mode()
        with _any_kernels():
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(forward(learner, inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        yield batch


def train_on_images(learner: Learner, batch: int) -> Steps:
    """The steps of `full_train`, epoch after epoch."""
    optimizer = build_optimizer(learner.groups, LR, momentum=0.9, weight_decay=0.0, name=learner.optimizer)
    for epoch in count():
        order = even_batches(permutation(learner.train.num_samples, "benchmark", epoch), batch)
        for made in train_batches(learner.train, order, micro_batch_size=learner.micro_batch_size, draw=epoch):
            take_step(learner, optimizer, made, seed=("benchmark", epoch))
            yield made.size


def forward_in_memory(learner: Learner, image_size: int) -> Steps:
    """The backbone on one batch of random images, as large as `precompute` takes them."""
    assert isinstance(learner.model, Classifier)
    backbone = replace(learner, model=learner.model.backbone)
    batch = min(learner.micro_batch_size, learner.train.num_samples)
    inputs = _random_images(learner, image_size, batch)
    while True:
        backbone.model.eval()
        with _any_kernels(), torch.no_grad():
            forward(backbone, inputs)
        yield batch


def _random_images(learner: Learner, image_size: int, batch: int) -> Tensor:
    """Normalised noise [batch, 3, image_size, image_size], where and as the model takes it."""
    return to_device(torch.randn(batch, 3, image_size, image_size, generator=torch.manual_seed(0)), learner.device)


@contextmanager
def _any_kernels() -> Iterator[None]:
    """Compute the block without the checks of determinism."""
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True)


if __name__ == "__main__":
    main()
