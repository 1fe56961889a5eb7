"""Prediction from a `model/` folder, which holds all that it needs: weights, classes, framing, TTA and calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.data.augment import Policy, read_policy
from pipeline.data.decode import decode, hash_pixels
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.novelty import Novelty, read_novelty, save_novelty
from pipeline.evaluation.tta import ImageFile, Probs, predict_plain, predict_with_tta
from pipeline.files import copy_file, read_json, write_json
from pipeline.model.card import Card
from pipeline.model.classifier import load_model
from pipeline.model.compute import Computation, move_model
from pipeline.model.precision import affordable
from pipeline.settings import TtaEvaluate

CPU = torch.device("cpu")

BATCH_SIZES = {"cpu": 16}
"""Images that are computed at once, by device."""

BATCH_SIZE = 64
"""On all other devices. `answer` halves it where the memory is too small."""

FILES = ("model.json", "policy.yaml", "tta.json", "calibration.json")
"""The files of a model folder beside its tensors."""


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

    def compared(self) -> Novelty:
        """What new images are compared with. Raises ValueError if the model does not say."""
        if self.novelty is None:
            raise ValueError(
                "novelty: this model was stored without novelty.safetensors, as exported files are; take the model "
                "folder, or make it again with `dvc repro tta_evaluate`"
            )
        return self.novelty

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


def load_predictor(folder: Path, device: torch.device = CPU) -> Predictor:
    """Read what `save_model_folder` wrote. Raises FileNotFoundError for any other folder."""
    check_is_model_folder(folder)
    model, card = load_model(folder)
    move_model(model, device)
    novelty = folder / "novelty.safetensors"
    return assemble_predictor(
        folder,
        model,
        card,
        device=device,
        novelty=read_novelty(novelty) if novelty.is_file() else None,
    )


def check_is_model_folder(folder: Path) -> None:
    """Raise FileNotFoundError, which says where a model folder is, for any other folder."""
    if (folder / "tta.json").is_file():
        return
    inside = next((f for f in ("model", "tta_evaluate/model") if (folder / f / "tta.json").is_file()), None)
    hint = f"take {folder / inside}" if inside else "`dvc repro` makes one, artifacts/tta_evaluate/model"
    why = "it has no tta.json" if folder.is_dir() else "there is no such folder"
    raise FileNotFoundError(f"{folder} is not a model folder ({why}): {hint}")


def assemble_predictor(
    folder: Path, model: nn.Module, card: Card, *, device: torch.device, novelty: Novelty | None
) -> Predictor:
    """Join a model on `device` with what the `FILES` in `folder` say."""
    values = read_json(folder / "tta.json")
    plain, tta = _read_calibrations(folder / "calibration.json")
    return Predictor(
        Computation(model, device, affordable(card.precision, device), BATCH_SIZES.get(device.type, BATCH_SIZE)),
        card,
        read_policy(folder / "policy.yaml", image_size=card.image_size),
        TtaCard(**{**values, "tta": TtaEvaluate(**values["tta"])}),
        plain_calibration=plain,
        tta_calibration=tta,
        novelty=novelty,
    )


def _read_calibrations(file: Path) -> tuple[Calibration, Calibration]:
    if not file.is_file():  # models stored before there was a calibration: at temperature 1 probabilities are as before
        return Calibration(), Calibration()
    values = read_json(file)
    return Calibration(**values["plain"]), Calibration(**values["tta"])
