"""The manifest: the list of samples that `ingest` writes and all later stages read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import file_digest, read_json, read_jsonl, write_json, write_jsonl
from pipeline.paths import from_checkout

_AGAIN = "Put the old file back, or run `dvc repro` again, which takes the images as they are now"


@dataclass(frozen=True, slots=True)
class Sample:
    """An image that is used."""

    path: str
    """Relative to the root of its source."""
    label: str
    """Empty if it has none; its split is then `unlabelled`."""
    split: str
    """`train`, `valid`, `test` or `unlabelled`; empty until it is assigned."""
    group: str
    """All samples of a group are in the same split: copies of an image, pictures of a patient."""
    file_sha256: str
    sha256: str
    """Of the decoded pixels: equal for copies in any lossless format."""
    width: int
    height: int


class ChangedImageError(ValueError):
    """An image is not what ingest saw; the message names it."""

    def __init__(self, message: str) -> None:
        """Torch makes the error of another process again with its traceback in the message: only the end is kept."""
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def check_unchanged(file: Path, file_sha256: str) -> None:
    """Raise ChangedImageError, which names the file, if its content is not that which ingest read (empty: unknown)."""
    if not file_sha256:
        return
    try:
        found = file_digest(file)
    except OSError as error:
        raise ChangedImageError(f"{file}: it was there when ingest ran, and now: {error.strerror}. {_AGAIN}") from None
    if found != file_sha256:
        raise ChangedImageError(f"{file} has changed since ingest read it. {_AGAIN}")


@dataclass(frozen=True)
class Manifest:
    """All samples, and the class list that fixes the order of every model's outputs."""

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    root: Path
    """The folder that the samples' paths are relative to."""

    def of(self, split: str) -> list[Sample]:
        """The samples of a split."""
        return [s for s in self.samples if s.split == split]

    def require_classes(self, trained: Sequence[str]) -> None:
        """Raise ValueError, which names the difference, if a model was `trained` with another list than `classes`."""
        if tuple(trained) == self.classes:
            return
        differing = sorted(set(trained) ^ set(self.classes))
        what = f"differ in {', '.join(differing[:5])}" if differing else "have another order"
        raise ValueError(
            f"the images have {len(self.classes)} classes and the model {len(trained)}, which {what}: train it again "
            "on these images"
        )

    @property
    def splits(self) -> list[str]:
        """Which of train, valid and test have images."""
        return [x for x in ("train", "valid", "test") if any(s.split == x for s in self.samples)]


def write_manifest(folder: Path, samples: Iterable[Sample], classes: list[str], *, root: str | None) -> None:
    """Write `manifest.jsonl`, `classes.json` and `source.json`. `root` is None if the images are in `folder` itself."""
    write_jsonl(folder / "manifest.jsonl", samples)
    write_json(folder / "classes.json", classes)
    write_json(folder / "source.json", {"root": root})


def read_manifest(folder: Path) -> Manifest:
    """Read what `write_manifest` wrote."""
    return Manifest(
        samples=tuple(Sample(**values) for values in read_jsonl(folder / "manifest.jsonl")),
        classes=tuple(read_json(folder / "classes.json")),
        root=read_root(folder),
    )


def read_root(folder: Path) -> Path:
    """Read the folder that the manifest's paths are relative to."""
    root = read_json(folder / "source.json")["root"]
    return folder if root is None else from_checkout(root)
