"""What all tests share: one thread per worker, no MLflow unless asked for, and a small folder of pictures."""

import copy
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: two workers share two cores
os.environ["UNFREEZE_TRACKING"] = "false"
os.environ["UNFREEZE_THREADS"] = "1"

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.ingest import ingest
from pipeline.data.ledger import LedgerLine
from pipeline.data.manifest import Sample
from pipeline.data.reader import read_facts
from pipeline.data.register import Register
from pipeline.data.sources import Folder
from pipeline.files import read_json
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.harness.published import complete_record, read_record, write_record
from pipeline.settings import Data, Runtime, read_settings, with_environment
from pipeline.workspace import Bar
from stages.registry import ALL

PROJECT = Path(__file__).resolve().parents[1]
CLASSES = ("bars", "dots", "plain")
TINY = (
    "data=folder",
    "data.image_size=32",
    "data.margin=0.0",
    "data.batch_size=8",
    "data.micro_batch_size=8",
    "model.arch=resnet18",
    "model.precision=fp32",  # the same on every machine
    "model.weights=glyphs",
    "lr_find_head.num_steps=40",
    "lr_find_head.repeats=1",
    "lr_find_full.num_steps=40",
    "lr_find_full.repeats=1",
    "full_train.num_cycles=2",
    "tta_evaluate.views=2",
)

Compose = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A finished run of all stages."""

    artifacts: Path
    params: dict[str, Any]

    def folder(self, stage: str) -> Path:
        return self.artifacts / stage

    def metrics(self, stage: str) -> Any:
        return read_json(self.folder(stage) / "metrics.json")


@pytest.fixture(scope="session")
def compose_conf() -> Compose:
    """Compose the project's own `conf/` with overrides."""

    def with_overrides(*overrides: str) -> dict[str, Any]:
        return compose(overrides, conf=PROJECT / "conf")

    return with_overrides


@pytest.fixture(scope="session")
def runtime(compose_conf: Compose) -> Runtime:
    return with_environment(read_settings(compose_conf(), source="conf").runtime)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes that are easy to tell apart, 24 noisy pictures of each, of changing shape."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def write_pictures(root: Path) -> Path:
    """Write what the fixture `pictures` promises into a folder; returns it."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(24):
            height, width = 36 + 2 * (i % 4), 40 + 3 * (i % 3)
            image = draw_picture(label, height, width, generator)
            image.save(root / name / (f"{i:02d}.png" if i % 2 else f"{i:02d}.jpg"))
    return root


def put(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of nested settings in which the dotted `key` has another value."""
    values = copy.deepcopy(values)
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section[name]
    section[last] = value
    return values


def publish_again(folder: Path) -> None:
    """Make a published folder that a test has changed a whole one again."""
    write_record(folder, complete_record(folder, read_record(folder)))


def draw_picture(label: int, height: int, width: int, generator: np.random.Generator) -> Image.Image:
    """A noisy picture of class `label`."""
    y, x = np.mgrid[:height, :width]
    shapes = [(x // 5) % 2, ((x // 4) % 2) & ((y // 4) % 2), np.zeros_like(x)]
    pixels = 60 + 120 * shapes[label][..., None] + generator.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, pictures: Path, compose_conf: Compose) -> Run:
    """All stages, run in order on the small folder of pictures."""
    params = compose_conf(*TINY, f"data.root={pictures}")
    return Run(run_stages(ALL, params, tmp_path_factory.mktemp("recipe")), params)


@dataclass(frozen=True)
class Looked:
    """What ingest makes of a folder, all in lists."""

    samples: list[Sample]
    classes: list[str]
    ledger: list[LedgerLine]
    counts: dict[str, dict[str, int]]
    notes: list[str]


def ingest_folder(root: Path, data: Data, *, seed: int = 0) -> Looked:
    """Ingest a folder of pictures, as the stage does."""
    with closing(Register()) as register:
        source = Folder(root)
        register.add_found(source.find())
        facts = read_facts(root, register.paths_to_read(), background=data.background, workers=1, bar=Bar())
        result = ingest(register, facts, replace(data, root=str(root)), seed=seed)
        return Looked(
            [*register.samples()],
            result.classes,
            [*register.ledger()],
            register.counts(),
            [*source.notes, *result.notes],
        )
