"""`unfreeze export`: a model folder as one ONNX or torch.export file, checked against the folder image by image."""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.data.image_file import is_image_file
from pipeline.data.manifest import read_manifest
from pipeline.data.normalisation import Normalisation
from pipeline.deployment.exported import IN_PT2, INPUT, OUTPUT, SUFFIXES, describe, read_exported, require_onnx
from pipeline.deployment.inputs import find_inputs
from pipeline.deployment.models import locate
from pipeline.evaluation.answers import answer
from pipeline.evaluation.prediction import CPU, Predictor, load_predictor
from pipeline.evaluation.tta import Probs
from pipeline.files import copy_file
from pipeline.model.classifier import load_model
from pipeline.printable import printable

TOLERANCE = 1e-4
"""Largest difference of a probability between the file and the folder."""
NUM_IMAGES = 200
"""How many images are compared, at most."""


@dataclass(frozen=True)
class Parity:
    """How far the file's answers are from the folder's."""

    largest: float
    """Difference of a probability."""
    num_images: int
    images: str
    """Which images."""


class _FromPixels(nn.Module):
    """Images [N, 3, H, W] from 0 to 1 to logits [N, num_classes]: the model with its normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model((images - self.mean) / self.std)
        return logits


def export(folder: Path, out: Path, files: Sequence[Path], *, images: str, tolerance: float = TOLERANCE) -> Parity:
    """Write the model in `folder` to `out`, and compare both on image `files`.

    Raises ValueError, and leaves no file, if they differ by more than `tolerance`, or if the model cannot be exported.
    """
    predictor = load_predictor(folder)
    expected = _expected(predictor, files)
    if not expected:
        raise ValueError(f"none of {len(files)} files ({images}) is a readable image: nothing to compare on")
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / f"model{out.suffix}"
        write_exported(folder, predictor, draft)
        if others := [p.name for p in Path(scratch).iterdir() if p != draft]:
            raise ValueError(f"{out}: the model does not fit into one file (beside it: {', '.join(others)}); try .pt2")
        parity = compare(expected, read_exported(draft, CPU), images=images)
        if not parity.largest <= tolerance:
            raise ValueError(
                f"{out} was not written: its probabilities differ from those of {folder} by up to {parity.largest:.2g} "
                f"on {parity.num_images} images ({images}), more than {tolerance:g}"
            )
        copy_file(draft, out)
    return parity


def write_exported(folder: Path, predictor: Predictor, out: Path) -> None:
    """Write the model in `folder`, without a check. Raises ValueError if it cannot be exported."""
    if out.suffix == ".onnx":
        require_onnx()
    model, card = load_model(folder)
    described = describe(predictor, folder)
    example = torch.rand(2, 3, card.image_size, card.image_size, generator=torch.Generator().manual_seed(0))
    network = _FromPixels(model, card.normalisation).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        try:
            program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            if out.suffix == ".pt2":
                texts = {IN_PT2: json.dumps(described, ensure_ascii=False)}
                torch.export.save(program, out, extra_files=texts)
            else:
                _save_onnx(program, out, described)
        except Exception as error:  # of many kinds
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{card.arch} cannot be exported to {out.suffix}: {reason}") from error


def _save_onnx(program: torch.export.ExportedProgram, out: Path, described: dict[str, str]) -> None:
    made = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    assert made is not None
    made.model.metadata_props.update(described)
    made.save(out)


def compare(expected: Mapping[Path, Probs], exported: Predictor, *, images: str) -> Parity:
    """Compare the calibrated probabilities of an exported model with those that are `expected` for each file."""
    answers = answer(exported, list(expected))
    differences = [float(np.abs(a.probs - expected[a.file]).max()) for a in answers if a.probs is not None]
    return Parity(max(differences), len(differences), images)


def _expected(predictor: Predictor, files: Sequence[Path]) -> dict[Path, Probs]:
    """The calibrated probabilities of the files that can be read, computed in single precision as exported files do."""
    exact = replace(predictor, computation=replace(predictor.computation, precision="fp32"))
    return {a.file: a.probs for a in answer(exact, files) if a.probs is not None}


def images_to_compare(folder: Path, given: Sequence[str], scratch: Path) -> tuple[list[Path], str]:
    """Image files to compare on, and what they are: those given, the run's own test images, or random ones."""
    if given:
        found = [named.path for named in find_inputs(given, stdin=sys.stdin.buffer) if not named.error]
        return _spread(found), "of " + ", ".join(given)
    ingest = folder.resolve().parent.parent / "ingest"
    if (ingest / "stage.json").is_file():
        manifest = read_manifest(ingest)
        split = "test" if manifest.of("test") else "valid"
        files = _spread([manifest.root / path for path in manifest.of(split).paths])
        if files and all(map(is_image_file, files)):
            return files, f"of the run's {split} images"
    return _random_images(scratch), "random ones; --images FOLDER takes real ones"


def _spread(files: Sequence[Path]) -> list[Path]:
    """At most `NUM_IMAGES` of the files, evenly spread: neighbours are often of one class."""
    count = min(len(files), NUM_IMAGES)
    return [files[i * len(files) // count] for i in range(count)]


def _random_images(folder: Path) -> list[Path]:
    """Noise of many scales, so that all of the network answers."""
    generator, files = np.random.default_rng(0), []
    for i in range(NUM_IMAGES):
        side = int(generator.choice([2, 4, 8, 32, 96]))
        noise = Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8))
        files.append(folder / f"{i}.png")
        noise.resize((128, 96), Image.Resampling.BICUBIC).save(files[-1])
    return files


def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Export a model; returns 1 if it fails."""
    parser = argparse.ArgumentParser(prog=prog, description="Write a trained model as one file for other programs.")
    parser.add_argument("model", help="a model folder, models:/NAME@champion or runs:/ID/model")
    parser.add_argument("out", type=Path, help="OUT.onnx or OUT.pt2 (torch.export)")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help=f"files or folders to compare on, up to {NUM_IMAGES} images; default: the run's own test images, where "
        "they are beside the model, else random ones",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="largest difference of a probability that is accepted (default: %(default)g)",
    )
    arguments = parser.parse_args(argv)
    if arguments.out.suffix not in SUFFIXES:
        parser.error(f"{arguments.out}: the name must end in {' or '.join(SUFFIXES)}")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = locate(arguments.model, Path(scratch))
            files, images = images_to_compare(folder, arguments.images, Path(scratch))
            parity = export(folder, arguments.out, files, images=images, tolerance=arguments.tolerance)
    except (ValueError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    done = (
        f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB; largest difference of a probability from "
        f"{arguments.model} on {parity.num_images} images ({parity.images}): {parity.largest:.1e}, at most "
        f"{arguments.tolerance:.0e} is accepted"
    )
    print(printable(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
