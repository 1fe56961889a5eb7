"""What both sides do: the images, the network, and how long it is trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pipeline.harness.quoting import hydra_value

GLYPHS = Path(__file__).resolve().parents[2] / "pretraining" / "weights" / "resnet18.safetensors"
"""The weights that ship with the repository, as `model.weights=glyphs` reads them."""


@dataclass(frozen=True)
class Work:
    """One job for both sides."""

    name: str
    data: str
    """Absolute path of a folder with `train/`, `valid/` and `test/`, each with a folder per class."""
    arch: str
    """torchvision's name."""
    weights: str
    """Absolute path of a safetensors file with torchvision's tensor names."""
    image_size: int
    batch_size: int
    flip: bool
    """Whether augmentation mirrors images."""
    goal: float
    """The goal for our wall time over fastai's."""
    head_epochs: int = 2
    augmented_cycles: int = 3
    """Of one epoch each."""
    full_cycles: int = 3
    """Of 1, 2, 4, ... epochs."""
    finder_steps: int = 100
    """Of each of fastai's two sweeps, its default; ours see half an epoch."""
    tta_views: int = 4
    """Random views, beside the plain image."""

    @property
    def settings(self) -> list[str]:
        """Our overrides. The head is trained by SGD and nothing stops early, because fastai's epochs are fixed too."""
        augment, background = ("side_on", "white") if self.flip else ("symbols", "black")
        margin = -0.0714 if self.flip else 0.0
        return [
            "base=conf",
            "data=folder",
            f"data.root={hydra_value(self.data)}",
            f"data.image_size={self.image_size}",
            f"data.batch_size={self.batch_size}",
            f"data.margin={margin}",
            f"data.background={background}",
            "data.on_split_group=keep",
            "model=glyphs",
            f"model.arch={self.arch}",
            f"model.weights={hydra_value(self.weights)}",
            f"augment={augment}",
            "head_train=sgd",
            f"head_train.num_cycles={self.head_epochs}",
            f"head_train_augmented.num_cycles={self.augmented_cycles}",
            f"full_train.num_cycles={self.full_cycles}",
            "full_train.until_overfit=false",
            "tta_evaluate=augment",
            f"tta_evaluate.views={self.tta_views}",
        ]


def digits(folder: Path, *, image_size: int = 64, share: float = 1.0) -> Work:
    """scikit-learn's digits, written into `folder` if they are not there, with the shipped weights."""
    write_digits(folder, image_size=image_size, share=share)
    return Work("digits", str(folder), "resnet18", str(GLYPHS), image_size, 64, flip=False, goal=0.5)


def photos(folder: Path, weights: Path) -> Work:
    """A folder of photos, with weights of squeezenet1_1."""
    for path in (folder / "train", folder / "valid", folder / "test", weights):
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: photos are in train/, valid/ and test/, a folder per class")
    return Work("photos", str(folder.resolve()), "squeezenet1_1", str(weights.resolve()), 224, 32, flip=True, goal=0.4)


def write_digits(folder: Path, *, image_size: int, share: float = 1.0) -> None:
    """Write `share` of the digits as RGB JPEGs of `image_size` pixels: 60 % train, 20 % valid, 20 % test, by class."""
    done = folder.with_suffix(".done")  # beside it: in it, ingest would see the file
    if done.exists():
        return
    digits = load_digits()
    for split, indices in _splits(digits.target, share):
        for i in indices:
            target = folder / split / str(digits.target[i])
            target.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((digits.images[i] * (255 / 16)).astype("uint8")).convert("RGB")
            image.resize((image_size, image_size), Image.Resampling.BICUBIC).save(target / f"{i:04d}.jpg", quality=92)
    done.touch()


def _splits(targets: "list[int]", share: float) -> Iterator[tuple[str, list[int]]]:
    indices = list(range(len(targets)))
    if share < 1:
        indices, _ = train_test_split(indices, train_size=share, random_state=0, stratify=[targets[i] for i in indices])
    train, rest = train_test_split(indices, test_size=0.4, random_state=0, stratify=[targets[i] for i in indices])
    valid, test = train_test_split(rest, test_size=0.5, random_state=0, stratify=[targets[i] for i in rest])
    yield from (("train", train), ("valid", valid), ("test", test))
