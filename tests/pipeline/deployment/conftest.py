"""A model folder that is made in a moment, and photos for it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.augment import write_policy
from pipeline.data.decode import Framing
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.novelty import Novelty
from pipeline.evaluation.prediction import TtaCard, save_model_folder
from pipeline.model.backbone import build_backbone
from pipeline.model.card import Card
from pipeline.model.classifier import Classifier, save_model
from pipeline.model.ensemble import Ensemble
from pipeline.model.head import Head
from pipeline.settings import Augment, TtaEvaluate

ARCH, SIZE = "squeezenet1_1", 48
CLASSES = ("ants", "bees", "猫 | cat")


def make_model_folder(folder: Path, *, members: int = 1, mode: str = "augment", seed: int = 0) -> Path:
    """Write a model folder with random weights, as `tta_evaluate` leaves it; with several members, an ensemble."""
    folder.mkdir(parents=True)
    trained = folder / "trained"
    trained.mkdir()
    torch.manual_seed(seed)
    made = [_classifier() for _ in range(members)]
    card = Card(ARCH, 0.2, "fp32", SIZE, CLASSES, made[0].backbone.normalisation)
    save_model(made[0] if members == 1 else Ensemble(made), card, trained)
    augment = Augment("horizontal", 10.0, 0.0, 1.0, 0.0, "reflect", 0.5, 0.1, 0.1)
    write_policy(folder / "policy.yaml", augment, Framing(SIZE, "zoom", "white", -0.05))
    tta = {
        "augment": TtaEvaluate("augment", 2, None, None, None, "uniform"),
        "multi_scale": TtaEvaluate("multi_scale", None, None, None, [1.5], "uniform"),
    }[mode]
    save_model_folder(
        folder / "model",
        trained=trained,
        policy=folder / "policy.yaml",
        tta_card=TtaCard(tta, 0, None),
        calibrations={"plain": Calibration(1.25, [0.1, 0.5, 0.7, 0.9]), "tta": Calibration(0.8, [0.2, 0.6, 0.8, 0.9])},
        novelty=Novelty(torch.rand(4, 512), torch.rand(4).sort().values),
    )
    return folder / "model"


def _classifier() -> Classifier:
    backbone = build_backbone(ARCH, image_size=SIZE)
    head = Head(backbone.num_features, len(CLASSES), dropout=0.2)
    torch.nn.init.normal_(head[2].weight, std=3.0)  # type: ignore[arg-type]  # images then differ in their answers
    return Classifier(backbone, head)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("deployed") / "one")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of changing shape and content, as JPEG and PNG."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    files = []
    for i in range(8):
        coarse = Image.fromarray(generator.integers(0, 255, (3 + i % 3, 4, 3), np.uint8))
        files.append(folder / (f"{i}.jpg" if i % 2 else f"{i}.png"))
        coarse.resize((60 + 9 * i, 70), Image.Resampling.BICUBIC).save(files[-1])
    return files
