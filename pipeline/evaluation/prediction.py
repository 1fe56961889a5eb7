"""Prediction from a `model/` folder, which holds all that it needs: weights, classes, framing and the TTA settings.

`python -m pipeline.evaluation.prediction artifacts/tta_evaluate/model photo.jpg ...` prints a line per file. With
`--tta` it uses all views of an image, like the evaluation.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from pipeline.data.augment import Policy, read_policy
from pipeline.data.decode import decode, hash_pixels
from pipeline.evaluation.tta import ImageFile, Probs, predict_plain, predict_with_tta
from pipeline.files import copy_file, read_json, write_json
from pipeline.model.card import Card
from pipeline.model.classifier import load_model
from pipeline.model.compute import Computation, move_model
from pipeline.settings import TtaEvaluate

BATCH_SIZE = 16


@dataclass(frozen=True)
class TtaCard:
    """How the evaluation did test-time augmentation."""

    tta: TtaEvaluate
    seed: int
    """Decides the random views."""
    plain_weight: float | None
    """Share of the plain image; None: the same weight as each view."""


@dataclass(frozen=True)
class Predictor:
    """A model with everything needed to classify an image file."""

    computation: Computation
    card: Card
    policy: Policy
    tta_card: TtaCard

    def predict(self, files: Sequence[Path], *, tta: bool = False) -> Probs:
        """Predict the classes of image files.

        Args:
            files: paths of images in any format that training accepts.
            tta: whether to average over views of each image, as in the evaluation.

        Returns probabilities [len(files), num_classes], in the order of `card.classes`. Raises DecodeError for a file
        that is not a readable image.
        """
        normalisation = self.card.normalisation
        if not tta:
            plain = [ImageFile(file, "") for file in files]
            return predict_plain(self.computation, plain, self.policy, normalisation=normalisation)
        how, background = self.tta_card, self.policy.framing.background
        images = [ImageFile(file, hash_pixels(decode(file, background=background).image)) for file in files]
        prediction = predict_with_tta(
            self.computation, images, how.tta, self.policy, normalisation=normalisation, seed=how.seed
        )
        return prediction.combined(how.plain_weight)


def save_model_folder(folder: Path, *, trained: Path, policy: Path, tta_card: TtaCard) -> None:
    """Gather what prediction needs: the weights and the card in `trained`, the policy file, and the TTA settings."""
    folder.mkdir()
    for source in (trained / "model.safetensors", trained / "model.json", policy):
        copy_file(source, folder / source.name)
    write_json(folder / "tta.json", asdict(tta_card))


def load_predictor(folder: Path) -> Predictor:
    """Read what `save_model_folder` wrote, to predict on the CPU. Raises FileNotFoundError for any other folder."""
    if not (folder / "tta.json").is_file():
        raise FileNotFoundError(
            f"{folder} is not a model folder (it has no tta.json): `dvc repro` makes one, artifacts/tta_evaluate/model"
        )
    model, card = load_model(folder)
    policy = read_policy(folder / "policy.yaml", image_size=card.image_size)
    values = read_json(folder / "tta.json")
    cpu = torch.device("cpu")
    move_model(model, cpu)
    tta_card = TtaCard(**{**values, "tta": TtaEvaluate(**values["tta"])})
    return Predictor(Computation(model, cpu, card.precision, BATCH_SIZE), card, policy, tta_card)


def describe(predictor: Predictor, files: Sequence[Path], *, tta: bool = False) -> Iterator[str]:
    """One line per file: its name, the most probable class, and its probability."""
    for file in files:
        probs = predictor.predict([file], tta=tta)[0]
        best = int(probs.argmax())
        yield f"{file}\t{predictor.card.classes[best]}\t{probs[best]:.4f}"


def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Print a line per image; returns 1 if an image, or the model, cannot be read."""
    parser = argparse.ArgumentParser(prog=prog, description="Classify images with a trained model.")
    parser.add_argument("model", type=Path, help="the folder artifacts/tta_evaluate/model")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, as in the evaluation")
    arguments = parser.parse_args(argv)
    try:
        for line in describe(load_predictor(arguments.model), arguments.images, tta=arguments.tta):
            print(line)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
