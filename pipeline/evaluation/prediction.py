"""Prediction from a `model/` folder, which holds all that it needs: weights, classes, framing.

`python -m pipeline.evaluation.prediction artifacts/tta_evaluate/model photo.jpg ...` prints a line per file.
"""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.augment import read_policy
from pipeline.data.decode import Framing, decode_framed
from pipeline.data.images import normalise
from pipeline.device import computing_in, place, to_device
from pipeline.model.classifier import Classifier, load_classifier
from pipeline.model.head import Card
from pipeline.vision import v2


@dataclass(frozen=True)
class Predictor:
    """A model with all that stands between a file and its class."""

    model: Classifier
    card: Card
    framing: Framing

    @torch.no_grad()
    def predict(self, files: Sequence[Path]) -> Tensor:
        """Probabilities [len(files), num_classes]. Raises DecodeError for a file that is no readable image."""
        pixels = torch.stack([self._pixels(file) for file in files])
        device = torch.device("cpu")
        with computing_in(self.card.precision, device):
            logits: Tensor = self.model.eval()(to_device(normalise(pixels), device))
        return logits.float().softmax(dim=1)

    def _pixels(self, file: Path) -> Tensor:
        pixels: Tensor = v2.functional.pil_to_tensor(decode_framed(file, self.framing))
        return pixels


def save_model_folder(folder: Path, *, trained: Path, policy: Path) -> None:
    """Gather what prediction needs: the trained model's weights and card, and the policy that frames images."""
    folder.mkdir()
    for source in (trained / "model.safetensors", trained / "model.json", policy):
        shutil.copyfile(source, folder / source.name)


def load_predictor(folder: Path) -> Predictor:
    """Read what `save_model_folder` wrote."""
    model, card = load_classifier(folder)
    policy = read_policy(folder / "policy.yaml", image_size=card.image_size)
    place(model, torch.device("cpu"))
    return Predictor(model, card, policy.framing)


def describe(predictor: Predictor, files: Sequence[Path]) -> Iterator[str]:
    """One line per file: its name, the most likely class, and how sure the model is."""
    for file in files:
        probs = predictor.predict([file])[0]
        best = int(probs.argmax())
        yield f"{file}\t{predictor.card.classes[best]}\t{probs[best]:.4f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Classify images with a trained model.")
    parser.add_argument("model", type=Path, help="the folder artifacts/tta_evaluate/model")
    parser.add_argument("images", type=Path, nargs="+")
    arguments = parser.parse_args()
    for line in describe(load_predictor(arguments.model), arguments.images):
        print(line)
