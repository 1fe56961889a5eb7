"""Train a backbone to tell the glyphs apart, and write its weights.

Reads the atlas, draws new images of it for every epoch, writes `weights/<arch>.safetensors` and `<arch>.json`
beside it. Progress is kept per epoch in `.scratch/`; a killed run goes on from there to the same weights.
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

from pipeline.model import backbone as backbone_code
from pipeline.model.backbone import MEAN, STD, build_backbone
from pipeline.model.tensors import save_tensors
from pretraining import render as render_code
from pretraining.glyphs import Atlas
from pretraining.render import RenderSettings, render
from pretraining.settings import ATLAS, SCRATCH, WEIGHTS, load_settings

HELD_OUT_SEED_OFFSET = 1_000_003
"""Held-out renderings come from another seed, so that no training image is among them."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How the backbone is trained."""

    arch: str
    seed: int
    num_threads: int
    """Of torch. Results are equal to the bit for the same number only."""
    bfloat16: bool
    """Compute in bfloat16 where that is safe; which is faster depends on the architecture."""
    num_epochs: int
    epoch_size: int
    """Images per epoch, all of them new."""
    batch_size: int
    lr: float
    """Greatest learning rate: reached after the warm-up, then lowered to zero along a cosine."""
    warmup_epochs: float
    weight_decay: float
    held_out_size: int
    """Renderings on which accuracy is reported."""


class Pretraining:
    """The network in training: backbone, classifier, optimizer and the number of finished epochs."""

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
        """One optimizer update; the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16):
            logits = self.model(normalise(images))
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach())

    def save(self, path: Path, *, identity: str) -> None:
        """Write the checkpoint whole or not at all."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        state = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
        unfinished = path.with_suffix(".unfinished")
        torch.save(state | {"epoch": self.epoch, "identity": identity}, unfinished)
        unfinished.replace(path)

    def restore(self, path: Path, *, identity: str) -> bool:
        """Take up the checkpoint, if there is one of this identity."""
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
    """Weight decay for weights only, not for biases and normalisation."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def normalise(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] to what torchvision's backbones take."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    scaled = (images.float() / 255.0 - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


def batches(
    atlas: Atlas, settings: RenderSettings, *, seed: int, first: int, count: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batches of the images `first` to `first + count`."""
    for start in range(first, first + count - batch_size + 1, batch_size):
        yield render(atlas, settings, seed=seed, indices=torch.arange(start, start + batch_size))


def train(settings: TrainSettings, drawing: RenderSettings, *, atlas: Atlas, scratch: Path) -> Pretraining:
    """Train, from the checkpoint in `scratch` if it is of these settings, glyphs and code."""
    pretraining = Pretraining(settings, num_classes=atlas.num_classes)
    checkpoint = scratch / f"{settings.arch}.pt"
    identity = _identity(settings, drawing, atlas)
    if pretraining.restore(checkpoint, identity=identity):
        print(f"goes on after epoch {pretraining.epoch} of {settings.num_epochs}", flush=True)
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
    """One epoch of new images; the mean loss."""
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
    """The share of renderings of another seed whose glyph is recognised."""
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
    """Write the backbone in half precision, and beside it what it was trained on."""
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
    (folder / f"{settings.arch}.json").write_text(json.dumps(card, indent=2) + "\n")


def _identity(settings: TrainSettings, drawing: RenderSettings, atlas: Atlas) -> str:
    """A digest of all that the weights depend on, code included."""
    digest = hashlib.sha256(json.dumps([asdict(settings), asdict(drawing), torch.__version__]).encode())
    digest.update(atlas.fields.numpy().tobytes() + atlas.labels.numpy().tobytes())
    for source in (__file__, render_code.__file__, backbone_code.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def _progress() -> Progress:
    """A bar in a terminal; elsewhere only what is printed."""
    description, loss = TextColumn("{task.description}"), TextColumn("loss {task.fields[loss]}")
    columns = (description, BarColumn(), loss, TimeRemainingColumn())
    return Progress(*columns, disable=not sys.stdout.isatty() or "CI" in os.environ)


def main() -> None:
    """Train, and write the weights."""
    settings, drawing = load_settings(TrainSettings, "train"), load_settings(RenderSettings, "render")
    torch.set_num_threads(settings.num_threads)
    SCRATCH.mkdir(exist_ok=True)
    with FileLock(SCRATCH / f"{settings.arch}.lock"):
        atlas = Atlas.load(ATLAS)
        pretraining = train(settings, drawing, atlas=atlas, scratch=SCRATCH)
        write_weights(pretraining, drawing, atlas=atlas, folder=WEIGHTS)


if __name__ == "__main__":
    main()
