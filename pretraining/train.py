"""Train a backbone to classify the glyphs, and write its weights.

Reads the atlas, renders new images for every epoch, and writes `weights/<arch>.safetensors` and `weights/<arch>.json`.
A checkpoint is written to `.scratch/` after each epoch; a killed run resumes from it and ends with the same weights.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from pipeline.files import atomic_file, write_text
from pipeline.model import backbone as backbone_code
from pipeline.model.backbone import MEAN, STD, build_backbone
from pipeline.model.tensors import save_tensors
from pretraining import render as render_code
from pretraining.glyphs import Atlas
from pretraining.render import RenderSettings, render
from pretraining.settings import ATLAS, SCRATCH, WEIGHTS, load_settings

HELD_OUT_SEED_OFFSET = 1_000_003
"""Held-out renderings use another seed, so that none of them is a training image."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How the backbone is trained."""

    arch: str
    seed: int
    num_threads: int
    """torch's threads. Results are the same bit for bit only with the same number."""
    bfloat16: bool
    """Compute in bfloat16 under autocast. Whether that is faster depends on the architecture."""
    num_epochs: int
    epoch_size: int
    """Images per epoch, all new."""
    batch_size: int
    lr: float
    """Highest learning rate: reached after the warm-up, then annealed to zero along a cosine."""
    warmup_epochs: float
    weight_decay: float
    held_out_size: int
    """Number of renderings on which accuracy is measured."""


class Pretraining:
    """The training state: backbone, classifier, optimizer and the number of finished epochs."""

    def __init__(self, settings: TrainSettings, *, num_classes: int) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.epoch = 0
        self.backbone = build_backbone(settings.arch)
        self.model = nn.Sequential(self.backbone, nn.Linear(self.backbone.num_features, num_classes))
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            _decayed_apart(self.model, settings.weight_decay), lr=settings.lr, betas=(0.9, 0.99), fused=True
        )
        steps = settings.epoch_size // settings.batch_size
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, _OneCycle(round(settings.warmup_epochs * steps), settings.num_epochs * steps)
        )

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Make one optimizer update on uint8 images and return the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16):
            logits = self.model(normalise(images))
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach())

    def save(self, path: Path, *, identity: str) -> None:
        """Write the checkpoint atomically."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        state = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
        with atomic_file(path) as file:
            torch.save(state | {"epoch": self.epoch, "identity": identity}, file)

    def restore(self, path: Path, *, identity: str) -> bool:
        """Load the checkpoint and return True if it exists and has this identity."""
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        if state["identity"] != identity:
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.epoch = state["epoch"]
        return True


@dataclass(frozen=True)
class _OneCycle:
    warmup: int
    total: int

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.total - self.warmup)))


def _decayed_apart(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Make two parameter groups: weight decay for weights, none for biases and normalisation."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def normalise(images: Tensor) -> Tensor:
    """Scale and normalise uint8 images [N, 3, H, W] as torchvision's backbones expect."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    scaled = (images.float() / 255.0 - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


def batches(
    atlas: Atlas, settings: RenderSettings, *, seed: int, first: int, count: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield full batches of the images `first` to `first + count - 1`."""
    for start in range(first, first + count - batch_size + 1, batch_size):
        yield render(atlas, settings, seed=seed, indices=torch.arange(start, start + batch_size))


def train(settings: TrainSettings, drawing: RenderSettings, *, atlas: Atlas, scratch: Path) -> Pretraining:
    """Train, resuming from the checkpoint in `scratch` if it has the same settings, glyphs and code."""
    pretraining = Pretraining(settings, num_classes=atlas.num_classes)
    checkpoint = scratch / f"{settings.arch}.pt"
    identity = _identity(settings, drawing, atlas)
    if pretraining.restore(checkpoint, identity=identity):
        print(f"resuming after epoch {pretraining.epoch} of {settings.num_epochs}", flush=True)
    with _progress() as progress:
        while pretraining.epoch < settings.num_epochs:
            title = f"epoch {pretraining.epoch + 1}/{settings.num_epochs}"
            task = progress.add_task(title, total=settings.epoch_size, loss="")
            loss = _train_epoch(pretraining, drawing, atlas, task, progress)
            progress.remove_task(task)
            pretraining.epoch += 1
            pretraining.save(checkpoint, identity=identity)
            progress.print(f"{title}: loss {loss:.4f}")
    return pretraining


def _train_epoch(
    pretraining: Pretraining, drawing: RenderSettings, atlas: Atlas, task: TaskID, progress: Progress
) -> float:
    """Train for one epoch of new images and return the mean loss."""
    settings = pretraining.settings
    pretraining.model.train()
    losses = []
    size = settings.epoch_size
    first = pretraining.epoch * size
    for images, labels in batches(
        atlas, drawing, seed=settings.seed, first=first, count=size, batch_size=settings.batch_size
    ):
        losses.append(pretraining.step(images, labels))
        progress.update(task, advance=len(labels), loss=f"{losses[-1]:.3f}")
    return sum(losses) / len(losses)


@torch.no_grad()
def held_out_accuracy(pretraining: Pretraining, drawing: RenderSettings, *, atlas: Atlas) -> float:
    """Accuracy on renderings that use another seed."""
    settings = pretraining.settings
    pretraining.model.eval()
    seed, count = settings.seed + HELD_OUT_SEED_OFFSET, settings.held_out_size
    found = torch.cat(
        [
            pretraining.model(normalise(images)).argmax(1) == labels
            for images, labels in batches(
                atlas, drawing, seed=seed, first=0, count=count, batch_size=settings.batch_size
            )
        ]
    )
    return float(found.float().mean())


def write_weights(pretraining: Pretraining, drawing: RenderSettings, *, atlas: Atlas, folder: Path) -> None:
    """Write the backbone in half precision, and a JSON file that describes its training."""
    settings = pretraining.settings
    folder.mkdir(exist_ok=True)
    state = pretraining.backbone.network.state_dict()
    save_tensors(state, folder / f"{settings.arch}.safetensors", half=True)
    card = {
        "arch": settings.arch,
        "trained_on": "drawings of letters and symbols (no digits) from the fonts that matplotlib ships",
        "num_classes": atlas.num_classes,
        "num_glyphs": len(atlas.labels),
        "num_images": settings.num_epochs * settings.epoch_size,
        "image_size": drawing.image_size,
        "held_out_accuracy": round(held_out_accuracy(pretraining, drawing, atlas=atlas), 4),
        "seed": settings.seed,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "train": asdict(settings),
        "render": asdict(drawing),
    }
    write_text(folder / f"{settings.arch}.json", json.dumps(card, indent=2) + "\n")


def _identity(settings: TrainSettings, drawing: RenderSettings, atlas: Atlas) -> str:
    """A digest of everything that the weights depend on, including code."""
    digest = hashlib.sha256(json.dumps([asdict(settings), asdict(drawing), torch.__version__]).encode())
    digest.update(atlas.fields.numpy().tobytes() + atlas.labels.numpy().tobytes())
    for source in (__file__, render_code.__file__, backbone_code.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def _progress() -> Progress:
    """Show a progress bar in a terminal; elsewhere only print."""
    description, loss = TextColumn("{task.description}"), TextColumn("loss {task.fields[loss]}")
    columns = (description, BarColumn(), loss, TimeRemainingColumn())
    return Progress(*columns, disable=not sys.stdout.isatty() or "CI" in os.environ)


def main() -> None:
    """Train and write the weights."""
    settings, drawing = load_settings(TrainSettings, "train"), load_settings(RenderSettings, "render")
    torch.set_num_threads(settings.num_threads)
    SCRATCH.mkdir(exist_ok=True)
    with FileLock(SCRATCH / f"{settings.arch}.lock"):
        atlas = Atlas.load(ATLAS)
        pretraining = train(settings, drawing, atlas=atlas, scratch=SCRATCH)
        write_weights(pretraining, drawing, atlas=atlas, folder=WEIGHTS)


if __name__ == "__main__":
    main()
