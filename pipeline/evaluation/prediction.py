"""Prediction from a `model/` folder, which holds all that it needs: weights, classes, framing, TTA and calibration.

`python -m pipeline.evaluation.prediction artifacts/tta_evaluate/model photo.jpg ...` prints a line per file. With
`--tta` it uses all views of an image, like the evaluation; `--coverage 0.9` adds a set of classes, and `--novelty` how
far the image is from those of training.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.data.augment import Policy, read_policy
from pipeline.data.decode import decode, hash_pixels
from pipeline.evaluation.calibration import Calibration, class_sets, threshold
from pipeline.evaluation.novelty import Novelty, Shares, features_of, read_novelty, save_novelty
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
    plain_calibration: Calibration
    tta_calibration: Calibration
    novelty: Novelty | None
    """None in model folders that were made before it was stored."""

    def predict(self, files: Sequence[Path], *, tta: bool = False, calibrated: bool = True) -> Probs:
        """Predict the classes of image files.

        Args:
            files: paths of images in any format that training accepts.
            tta: whether to average over views of each image, as in the evaluation.
            calibrated: whether to apply the temperature that was fitted on valid; the order of classes is the same.

        Returns probabilities [len(files), num_classes], in the order of `card.classes`. Raises DecodeError for a file
        that is not a readable image.
        """
        probs = self._predict(files, tta=tta)
        return self.calibration(tta=tta).probs(probs).astype(np.float64) if calibrated else probs

    def calibration(self, *, tta: bool) -> Calibration:
        """What was fitted on valid, for plain predictions or for those with TTA."""
        return self.tta_calibration if tta else self.plain_calibration

    def share_nearer(self, files: Sequence[Path]) -> Shares:
        """For each image file, the share of validation images that are nearer to the training images, in 0..1.

        Raises ValueError if the model folder does not say, and DecodeError for a file that is not a readable image.
        """
        if self.novelty is None:
            raise ValueError(
                "novelty: this model was stored without novelty.safetensors; make it again with `dvc repro "
                "tta_evaluate`"
            )
        features = features_of(self.computation, files, self.policy, normalisation=self.card.normalisation)
        return self.novelty.share_nearer(features)

    def _predict(self, files: Sequence[Path], *, tta: bool) -> Probs:
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


def save_model_folder(
    folder: Path,
    *,
    trained: Path,
    policy: Path,
    tta_card: TtaCard,
    calibrations: Mapping[str, Calibration],
    novelty: Novelty,
) -> None:
    """Gather what prediction needs: the weights and the card in `trained`, the policy file, and what was found since.

    `calibrations` are `plain` and `tta`.
    """
    folder.mkdir()
    for source in (trained / "model.safetensors", trained / "model.json", policy):
        copy_file(source, folder / source.name)
    write_json(folder / "tta.json", asdict(tta_card))
    write_json(folder / "calibration.json", {how: asdict(fitted) for how, fitted in calibrations.items()})
    save_novelty(novelty, folder / "novelty.safetensors")


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
    plain, tta = _read_calibrations(folder / "calibration.json")
    novelty = folder / "novelty.safetensors"
    return Predictor(
        Computation(model, cpu, card.precision, BATCH_SIZE),
        card,
        policy,
        tta_card,
        plain_calibration=plain,
        tta_calibration=tta,
        novelty=read_novelty(novelty) if novelty.is_file() else None,
    )


def _read_calibrations(file: Path) -> tuple[Calibration, Calibration]:
    if not file.is_file():  # models stored before there was a calibration: at temperature 1 probabilities are as before
        return Calibration(), Calibration()
    values = read_json(file)
    return Calibration(**values["plain"]), Calibration(**values["tta"])


def describe(
    predictor: Predictor,
    files: Sequence[Path],
    *,
    tta: bool = False,
    coverage: float | None = None,
    novelty: bool = False,
) -> Iterator[str]:
    """One line per file: its name, the most probable class, and its probability.

    With `coverage`, also a set of classes that holds the true one with that probability; with `novelty`, the share of
    validation images that are nearer to the training images. Raises ValueError for what the model cannot say.
    """
    highest_score = None if coverage is None else threshold(predictor.calibration(tta=tta).scores, coverage)
    classes = predictor.card.classes
    for file in files:
        probs = predictor.predict([file], tta=tta)
        best = int(probs[0].argmax())
        columns = [str(file), classes[best], f"{probs[0, best]:.4f}"]
        if highest_score is not None:
            inside = class_sets(probs, highest_score)[0]
            likely_first = [i for i in np.argsort(-probs[0], kind="stable") if inside[i]]
            columns.append(" | ".join(classes[i] for i in likely_first))
        if novelty:
            columns.append(f"{predictor.share_nearer([file])[0]:.3f}")
        yield "\t".join(columns)


def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Print a line per image; returns 1 if an image, or the model, cannot be read."""
    parser = argparse.ArgumentParser(prog=prog, description="Classify images with a trained model.")
    parser.add_argument("model", type=Path, help="the folder artifacts/tta_evaluate/model")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, as in the evaluation")
    parser.add_argument(
        "--coverage",
        type=float,
        metavar="SHARE",
        help="also print a set of classes that holds the true one for this share of images, such as 0.9",
    )
    parser.add_argument(
        "--novelty",
        action="store_true",
        help="also print which share of the validation images is nearer to the training images: 0.99 or more means "
        "that the image is unlike them",
    )
    arguments = parser.parse_args(argv)
    try:
        predictor = load_predictor(arguments.model)
        for line in describe(
            predictor, arguments.images, tta=arguments.tta, coverage=arguments.coverage, novelty=arguments.novelty
        ):
            print(line)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
