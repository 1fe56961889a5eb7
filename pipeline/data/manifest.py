"""The manifest: the list of samples that `ingest` writes and all later stages read.

There may be millions. So they are held in columns, in about 200 bytes each, and a `Sample` is made when it is asked
for.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pipeline.data.columns import Names, Texts
from pipeline.data.image_file import digest_image_file
from pipeline.files import read_json, write_json, write_jsonl
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


_KEYS = [field.name for field in fields(Sample)]
_FIELDS = set(_KEYS)
_AT_ONCE = 4096
"""Lines that are parsed at once."""

Rows = NDArray[np.int32]


class Samples(Sequence[Sample]):
    """Samples in columns, which all selections of them share."""

    def __init__(self, columns: "_Columns", rows: Rows) -> None:
        self._columns, self._rows = columns, rows

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> "Samples":
        """Put samples into columns."""
        return cls._of([{name: getattr(sample, name) for name in _KEYS}] for sample in samples)

    @classmethod
    def read(cls, file: Path) -> "Samples":
        """Read a file with a JSON object per line. Raises ValueError, which names the lines, if it is damaged."""
        return cls._of(_parse(file))

    @classmethod
    def _of(cls, parts: Iterable[Sequence[Mapping[str, Any]]]) -> "Samples":
        columns = _Columns()
        for part in parts:
            columns.extend(part)
        return cls(columns, np.arange(len(columns), dtype=np.int32))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Samples": ...
    def __getitem__(self, index: int | slice) -> "Sample | Samples":
        if isinstance(index, slice):
            return Samples(self._columns, self._rows[index])
        return self._columns.sample(int(self._rows[index]))

    def __iter__(self) -> Iterator[Sample]:
        return map(self._columns.sample, map(int, self._rows))

    def take(self, rows: Sequence[int]) -> "Samples":
        """The samples with these indices, in this order."""
        return Samples(self._columns, self._rows[np.asarray(rows, dtype=np.intp)])

    def of_splits(self, splits: Sequence[str]) -> "Samples":
        """The samples of these splits, one split after the other."""
        column = self._columns.split
        numbers = column.numbers[self._rows]
        rows = [self._rows[numbers == column.number_of(split)] for split in splits]
        return Samples(self._columns, np.concatenate(rows))

    @property
    def labels(self) -> tuple[list[str], NDArray[np.int32]]:
        """All labels that occur in the manifest, and which of them each sample has, [N]."""
        column = self._columns.label
        return column.names, column.numbers[self._rows]

    @property
    def sizes(self) -> NDArray[np.int32]:
        """[N, 2], width and height in pixels."""
        width, height = (np.array(column, dtype=np.int32) for column in (self._columns.width, self._columns.height))
        return np.stack([width[self._rows], height[self._rows]], axis=1)

    @property
    def paths(self) -> "Paths":
        """The path of each sample."""
        return Paths(self)


class Paths(Sequence[str]):
    """The paths of samples, made when they are asked for."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Paths": ...
    def __getitem__(self, index: int | slice) -> "str | Paths":
        return Paths(self._samples[index]) if isinstance(index, slice) else self._samples[index].path


class _Columns:
    """One column for each field of `Sample`."""

    def __init__(self) -> None:
        self.path, self.group, self.file_sha256, self.sha256 = (Texts() for _ in range(4))
        self.label, self.split = Names(), Names()
        self.width, self.height = array("i"), array("i")

    def __len__(self) -> int:
        return len(self.width)

    def sample(self, row: int) -> Sample:
        return Sample(*(getattr(self, name)[row] for name in _KEYS))

    def extend(self, values: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, given by field. Raises KeyError or TypeError for what is no sample."""
        for name in _KEYS:
            getattr(self, name).extend([row[name] for row in values])


def _parse(file: Path) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the objects of a file, some thousand at a time, which takes less time than one by one."""
    first = 1
    with file.open("rb") as lines:
        while some := list(islice(lines, _AT_ONCE)):
            try:
                found = json.loads(b"[" + b",".join(some) + b"]")
                if any(values.keys() != _FIELDS for values in found):
                    raise ValueError(f"an object has not the keys {', '.join(_KEYS)}")
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{file} is damaged in lines {first} to {first + len(some) - 1}: {error}") from None
            yield found
            first += len(some)


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
        found = digest_image_file(file)
    except OSError as error:
        raise ChangedImageError(f"{file}: it was there when ingest ran, and now: {error.strerror}. {_AGAIN}") from None
    if found != file_sha256:
        raise ChangedImageError(f"{file} has changed since ingest read it. {_AGAIN}")


@dataclass(frozen=True)
class Manifest:
    """All samples, and the class list that fixes the order of every model's outputs."""

    samples: Samples
    classes: tuple[str, ...]
    root: Path
    """The folder that the samples' paths are relative to."""

    def of(self, *splits: str) -> Samples:
        """The samples of these splits, one split after the other."""
        return self.samples.of_splits(splits)

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
        return [x for x in ("train", "valid", "test") if self.of(x)]


def write_manifest(folder: Path, samples: Iterable[Sample], classes: list[str], *, root: str | None) -> None:
    """Write `manifest.jsonl`, `classes.json` and `source.json`. `root` is None if the images are in `folder` itself."""
    write_jsonl(folder / "manifest.jsonl", samples)
    write_json(folder / "classes.json", classes)
    write_json(folder / "source.json", {"root": root})


def read_manifest(folder: Path) -> Manifest:
    """Read what `write_manifest` wrote: a million samples in four seconds. Raises ValueError if it is damaged."""
    return Manifest(
        samples=Samples.read(folder / "manifest.jsonl"),
        classes=tuple(read_json(folder / "classes.json")),
        root=read_root(folder),
    )


def read_root(folder: Path) -> Path:
    """Read the folder that the manifest's paths are relative to."""
    root = read_json(folder / "source.json")["root"]
    return folder if root is None else from_checkout(root)
