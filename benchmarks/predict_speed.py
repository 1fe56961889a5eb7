"""`unfreeze predict` beside a plain torchvision script: the first answer, and images per second.

`python -m benchmarks.predict_speed [--arch resnet18] [--image-size 224] [--photo 500 400] [--count 2000] [--pairs 5]
[--cores 2]` makes photos and a model with random weights. Both programs read the same files and weights, compute 16
images at once and print a line for each; they take turns. A pair of runs gives two ratios: of the times of one photo
(which is mostly start-up), and of the images per second, which are those of all photos in the time beyond that.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.decode_speed import make_photos
from pipeline.data.augment import write_policy
from pipeline.data.decode import Framing
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.novelty import Novelty
from pipeline.evaluation.prediction import TtaCard, save_model_folder
from pipeline.model.backbone import build_backbone
from pipeline.model.card import Card
from pipeline.model.classifier import Classifier, save_model
from pipeline.model.head import Head, linear_of
from pipeline.settings import Augment, TtaEvaluate
from pipeline.vision import models

CLASSES = tuple(f"class {i}" for i in range(10))
PLAIN = """
import sys
from pathlib import Path
import torch
from PIL import Image
from torchvision import models, transforms

arch, weights, folder, size = sys.argv[1:]
model = models.get_model(arch, num_classes=10)
model.load_state_dict(torch.load(weights, weights_only=True))
model.eval().to(memory_format=torch.channels_last)
normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
prepare = transforms.Compose([transforms.Resize((int(size), int(size))), transforms.ToTensor(), normalise])
files = sorted(Path(folder).iterdir())
with torch.inference_mode():
    for start in range(0, len(files), 16):
        some = files[start : start + 16]
        images = torch.stack([prepare(Image.open(file).convert("RGB")) for file in some])
        probs = model(images.contiguous(memory_format=torch.channels_last)).softmax(1)
        for file, row in zip(some, probs):
            print(file, int(row.argmax()), float(row.max()))
"""
WITHOUT_EXTENSION = """
import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
"""Comes first where torchvision's extension does not load, see `pipeline.vision`."""


def main() -> None:
    """Make the model and the photos, run both programs in turns, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--photo", type=int, nargs=2, default=[500, 400], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cpu", action="store_true", help="seconds of processors, for a machine that others use too")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory() as scratch:
        folder, size = Path(scratch), arguments.image_size
        weights, model = make_model(folder, arguments.arch, image_size=size)
        one, many = make_folders(folder, arguments.count, arguments.photo)
        plain, ours = folder / "plain.py", [sys.executable, "-m", "pipeline.cli", "predict", str(model)]
        plain.write_text(PLAIN if _runs(["-c", "import torchvision"]) else WITHOUT_EXTENSION + PLAIN)
        seconds: list[list[float]] = []
        for _ in range(arguments.pairs):
            pair = []
            for files in (one, many):
                given = [arguments.arch, str(weights), str(files), str(size)]
                pair.append(_time([sys.executable, str(plain), *given], by_cpu=arguments.cpu))
                pair.append(_time([*ours, str(files)], by_cpu=arguments.cpu))
            seconds.append(pair)
            print(" ".join(f"{s:7.2f}" for s in pair), flush=True)
    starts = [(p[0], p[1]) for p in seconds]
    rates = [((arguments.count - 1) / (p[2] - p[0]), (arguments.count - 1) / (p[3] - p[1])) for p in seconds]
    print(
        f"{arguments.arch} at {size} px, {arguments.count} JPEG of {arguments.photo[0]}x{arguments.photo[1]}, "
        f"{arguments.cores} cores, load {os.getloadavg()[0]:.1f}, {'CPU' if arguments.cpu else 'wall'} seconds"
    )
    _show("one photo", "s", starts)
    _show("images per second", "", rates)


def _show(name: str, unit: str, pairs: Sequence[tuple[float, float]]) -> None:
    ratios = sorted(ours / plain for plain, ours in pairs)
    plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"  {name:18} plain {plain:8.2f} {unit:1}  ours {ours:8.2f} {unit:1}  ours / plain "
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def _runs(arguments: list[str]) -> bool:
    return subprocess.run([sys.executable, *arguments], check=False, capture_output=True).returncode == 0


def _time(command: list[str], *, by_cpu: bool) -> float:
    """Seconds on the clock, or of processors, that a command takes."""
    began = _now(by_cpu)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return _now(by_cpu) - began


def _now(by_cpu: bool) -> float:
    if not by_cpu:
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_model(folder: Path, arch: str, *, image_size: int) -> tuple[Path, Path]:
    """A model with random weights: as a state of torchvision's network, and as our model folder."""
    torch.manual_seed(0)
    network = models.get_model(arch, num_classes=len(CLASSES))
    torch.save(network.state_dict(), folder / "weights.pt")
    backbone = build_backbone(arch, image_size=image_size)
    backbone.network.load_state_dict(network.state_dict(), strict=False)
    head = Head(backbone.num_features, len(CLASSES), dropout=0.0)
    last = network.get_submodule(*backbone.cut)
    if isinstance(last, nn.Linear):
        linear_of(head).load_state_dict(last.state_dict())
    trained = folder / "trained"
    trained.mkdir()
    card = Card(arch, 0.0, "fp32", image_size, CLASSES, backbone.normalisation)
    save_model(Classifier(backbone, head), card, trained)
    write_policy(
        trained / "policy.yaml",
        Augment("none", 0.0, 0.0, 1.0, 0.0, "reflect", 1.0, 0.0, 0.0),
        Framing(image_size, "squish", "white"),
    )
    save_model_folder(
        folder / "model",
        trained=trained,
        policy=trained / "policy.yaml",
        tta_card=TtaCard(TtaEvaluate("flip", None, None, None, None, "uniform"), 0, None),
        calibrations={"plain": Calibration(), "tta": Calibration()},
        novelty=Novelty(torch.rand(4, backbone.num_features), torch.rand(4).sort().values),
    )
    return folder / "weights.pt", folder / "model"


def make_folders(folder: Path, count: int, size: list[int]) -> tuple[Path, Path]:
    """A folder with one photo, and one with `count`, of which at most 200 differ."""
    made, one, many = folder / "made", folder / "one", folder / "many"
    for each in (made, one, many):
        each.mkdir()
    photos = make_photos(made, min(count, 200), size)
    (one / "0.jpg").hardlink_to(photos[0])
    for i in range(count):
        (many / f"{i:06}.jpg").hardlink_to(photos[i % len(photos)])
    return one, many


if __name__ == "__main__":
    main()
