"""torchvision's datasets by name: downloaded once; files are read in place, arrays are written as PNG files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.files import atomic_folder
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
"""Arguments that open each split of each dataset; "" stands for a dataset without splits, which we divide."""


def load_set(name: str, root: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield (file, label, split) of all images of a dataset that is kept below `root`.

    Raises SettingsError if the dataset is unknown, or is neither below `root` nor can be downloaded.
    """
    if name not in SPLITS:
        raise SettingsError(f"data.dataset={name} must be one of {', '.join(SPLITS)}")
    for split, arguments in SPLITS[name].items():
        dataset = _open(name, root, arguments)
        names = _class_names(dataset)
        for file, target in _files(dataset) or _write_images(dataset, root / f"{name}-png" / (split or "all")):
            yield file, names[target] if names else str(target), split


def _open(name: str, root: Path, arguments: dict[str, Any]) -> Any:
    from pipeline.vision import datasets  # takes seconds, and folders do not need it

    make = getattr(datasets, name)
    try:
        return make(root=root, **arguments, download=False)
    except (RuntimeError, OSError):
        pass  # not downloaded yet
    root.mkdir(parents=True, exist_ok=True)
    try:
        return make(root=root, **arguments, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise SettingsError(
            f"data.dataset={name} is not in {root.resolve()}, and cannot be downloaded ({error}). On a machine "
            f"with a network, run torchvision.datasets.{name}(root, {_listed(arguments)}download=True), and copy what "
            f"it puts into root to {root.resolve()}"
        ) from None


def _files(dataset: Any) -> list[tuple[Path, int]]:
    """The dataset's own files with their targets, if it has files. These names are torchvision's, which we pin."""
    pairs = getattr(dataset, "samples", None) or getattr(dataset, "_samples", None)
    files = getattr(dataset, "_image_files", None) or getattr(dataset, "_images", None)
    if pairs is None and files is not None:
        pairs = zip(files, dataset._labels, strict=True)
    return [(Path(file), int(target)) for file, target in pairs or ()]


def _write_images(dataset: Any, folder: Path) -> list[tuple[Path, int]]:
    """Write images that came as arrays into `folder`, once, as PNG files named by number and target."""
    if not folder.is_dir():
        with atomic_folder(folder) as draft:
            for i in range(len(dataset)):
                image, target = dataset[i]
                image.save(draft / f"{i:06d}-{int(target)}.png")
    return [(file, int(file.stem.partition("-")[2])) for file in sorted(folder.iterdir())]


def _class_names(dataset: Any) -> list[str]:
    """Class names by target. Some datasets give several names to a class, some give none."""
    classes = getattr(dataset, "classes", None) or []
    return [c if isinstance(c, str) else c[0] for c in classes]


def _listed(arguments: dict[str, Any]) -> str:
    return "".join(f"{key}={value!r}, " for key, value in arguments.items())
