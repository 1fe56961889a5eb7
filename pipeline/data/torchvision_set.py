"""torchvision's datasets by name: downloaded once, its files read where they lie, its arrays written out as PNG."""

import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.settings import SettingsError

SPLITS: dict[str, dict[str, dict[str, Any]]] = {
    "CIFAR10": {"train": {"train": True}, "test": {"train": False}},
    "CIFAR100": {"train": {"train": True}, "test": {"train": False}},
    "MNIST": {"train": {"train": True}, "test": {"train": False}},
    "FashionMNIST": {"train": {"train": True}, "test": {"train": False}},
    "KMNIST": {"train": {"train": True}, "test": {"train": False}},
    "SVHN": {"train": {"split": "train"}, "test": {"split": "test"}},
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
    "Flowers102": {"train": {"split": "train"}, "valid": {"split": "val"}, "test": {"split": "test"}},
    "Food101": {"train": {"split": "train"}, "test": {"split": "test"}},
    "DTD": {"train": {"split": "train"}, "valid": {"split": "val"}, "test": {"split": "test"}},
    "GTSRB": {"train": {"split": "train"}, "test": {"split": "test"}},
    "EuroSAT": {"": {}},
    "Imagenette": {
        "train": {"split": "train", "size": "320px"},
        "test": {"split": "val", "size": "320px"},
    },
}
"""How each set names its splits; where it has no split of its own (""), ours divides it."""


def load_set(name: str, root: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield (file, label, split) of all images, below `root`.

    Raises SettingsError where the set is unknown, or is neither below `root` nor to be had from the net.
    """
    if name not in SPLITS:
        raise SettingsError(f"data.dataset={name} is none of {', '.join(SPLITS)}")
    for split, arguments in SPLITS[name].items():
        dataset = _open(name, root, arguments)
        names = _class_names(dataset)
        for file, target in _files(dataset) or _written(dataset, root / f"{name}-png" / (split or "all")):
            yield file, names[target] if names else str(target), split


def _open(name: str, root: Path, arguments: dict[str, Any]) -> Any:
    # By name, so that who reads a folder need not wait for torch. What stands there decides nothing in the result.
    make = getattr(import_module("pipeline.vision").datasets, name)
    try:
        return make(root=root, **arguments, download=False)
    except (RuntimeError, OSError):
        pass  # not there yet
    root.mkdir(parents=True, exist_ok=True)
    try:
        return make(root=root, **arguments, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise SettingsError(
            f"data.dataset={name} is not in {root.resolve()}, and cannot be downloaded ({error}). Where there is a "
            f"network, run torchvision.datasets.{name}(root, {_listed(arguments)}download=True), and copy what it puts "
            f"into root to {root.resolve()}"
        ) from None


def _files(dataset: Any) -> list[tuple[Path, int]]:
    """The set's own files, where it has some. The names are torchvision's, which we pin."""
    pairs = getattr(dataset, "samples", None) or getattr(dataset, "_samples", None)
    files = getattr(dataset, "_image_files", None) or getattr(dataset, "_images", None)
    if pairs is None and files is not None:
        pairs = zip(files, dataset._labels, strict=True)
    return [(Path(file), int(target)) for file, target in pairs or ()]


def _written(dataset: Any, folder: Path) -> list[tuple[Path, int]]:
    """Images that came as arrays, as PNG files named by number and target; written whole or not at all."""
    if not folder.is_dir():
        draft = folder.with_name(f".{folder.name}.incoming")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for i in range(len(dataset)):
            image, target = dataset[i]
            image.save(draft / f"{i:06d}-{int(target)}.png")
        draft.rename(folder)
    return [(file, int(file.stem.partition("-")[2])) for file in sorted(folder.iterdir())]


def _class_names(dataset: Any) -> list[str]:
    """Names by target; some sets give several names to a class, some none."""
    classes = getattr(dataset, "classes", None) or []
    return [c if isinstance(c, str) else c[0] for c in classes]


def _listed(arguments: dict[str, Any]) -> str:
    return "".join(f"{key}={value!r}, " for key, value in arguments.items())
