"""Prediction from a `model/` folder, which holds all that it needs: weights, classes, framing, and the way of TTA.

`python -m pipeline.evaluation.prediction artifacts/tta_evaluate/model photo.jpg ...` prints a line per file. With
`--tta` each image is looked at as it was in the evaluation, from all its views.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from pipeline.console import complain
from pipeline.data.augment import Policy, read_policy
from pipeline.data.decode import decode, hash_pixels
from pipeline.evaluation.tta import Probs, ViewedFile, look, look_plain
from pipeline.files import read_json, write_json
from pipeline.learning.loop import Computation
from pipeline.model.classifier import load_model
from pipeline.model.compute import move_model
from pipeline.model.head import Card
from pipeline.settings import TtaEvaluate

BATCH_SIZE = 16


@dataclass(frozen=True)
class TtaCard:
    """How test-time augmentation was done."""

    tta: TtaEvaluate
    seed: int
    """Of the random views."""
    plain_weight: float | None
    """Share of the plain image; None: as much as each view."""


@dataclass(frozen=True)
class Predictor:
    """A model with all that stands between a file and its class."""

    computation: Computation
    card: Card
    policy: Policy
    tta_card: TtaCard

    def predict(self, files: Sequence[Path], *, tta: bool = False) -> Probs:
        """Probabilities [len(files), num_classes]. Raises DecodeError for a file that is no readable image."""
        if not tta:
            return look_plain(self.computation, [ViewedFile(file, "") for file in files], self.policy)
        how, background = self.tta_card, self.policy.framing.background
        viewed = [ViewedFile(file, hash_pixels(decode(file, background=background).image)) for file in files]
        return look(self.computation, viewed, how.tta, self.policy, seed=how.seed).combined(how.plain_weight)


def save_model_folder(folder: Path, *, trained: Path, policy: Path, tta_card: TtaCard) -> None:
    """Gather what prediction needs: the trained model's weights and card, the policy that frames images, and TTA."""
    folder.mkdir()
    for source in (trained / "model.safetensors", trained / "model.json", policy):
        shutil.copyfile(source, folder / source.name)
    write_json(folder / "tta.json", asdict(tta_card))


def load_predictor(folder: Path) -> Predictor:
    """Read what `save_model_folder` wrote. Raises FileNotFoundError for any other folder."""
    if not (folder / "tta.json").is_file():
        raise FileNotFoundError(
            f"{folder} is no model folder (it has no tta.json): `dvc repro` makes one, artifacts/tta_evaluate/model"
        )
    model, card = load_model(folder)
    policy = read_policy(folder / "policy.yaml", image_size=card.image_size)
    values = read_json(folder / "tta.json")
    cpu = torch.device("cpu")
    move_model(model, cpu)
    tta_card = TtaCard(**{**values, "tta": TtaEvaluate(**values["tta"])})
    return Predictor(Computation(model, cpu, card.precision, BATCH_SIZE), card, policy, tta_card)


def describe(predictor: Predictor, files: Sequence[Path], *, tta: bool = False) -> Iterator[str]:
    """One line per file: its name, the most likely class, and how sure the model is."""
    for file in files:
        probs = predictor.predict([file], tta=tta)[0]
        best = int(probs.argmax())
        yield f"{file}\t{predictor.card.classes[best]}\t{probs[best]:.4f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per image; 1 where one, or the model, cannot be read."""
    parser = argparse.ArgumentParser(description="Classify images with a trained model.")
    parser.add_argument("model", type=Path, help="the folder artifacts/tta_evaluate/model")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, as in the evaluation")
    arguments = parser.parse_args(argv)
    try:
        for line in describe(load_predictor(arguments.model), arguments.images, tta=arguments.tta):
            print(line)
    except (ValueError, OSError) as error:
        complain("prediction", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
