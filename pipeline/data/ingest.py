"""Look at every file once: decode it, hash it, give it a split, and say what was wrong with the others."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.console import Bar
from pipeline.data.decode import DecodeError, decode, hash_pixels
from pipeline.data.manifest import Sample
from pipeline.data.sources import SPLITS, Found, Source
from pipeline.data.split import assign_splits, thin_out
from pipeline.settings import Data, SettingsError


@dataclass(frozen=True)
class LedgerLine:
    """What is to be said of a file that is not simply a sample."""

    path: str
    verdict: str
    """`converted` or `rejected`."""
    reason: str


@dataclass(frozen=True)
class Ingested:
    """The result of looking at all files."""

    samples: list[Sample]
    classes: list[str]
    ledger: list[LedgerLine]

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples by split and class."""
        counted = Counter((s.split, s.label) for s in self.samples)
        splits = [x for x in SPLITS if any(s.split == x for s in self.samples)]
        return {split: {c: counted[split, c] for c in self.classes} for split in splits}


def ingest(source: Source, found: Sequence[Found], data: Data, *, seed: int, bar: Bar) -> Ingested:
    """Check every file of `source` and divide the good ones into splits.

    Raises SettingsError where nothing can be learned from what is left.
    """
    read: list[Sample | LedgerLine] = []
    ledger: list[LedgerLine] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        for sample, line in pool.map(lambda f: _look_at(source, f, data.background), found):
            read += [sample] if sample else []
            ledger += [line] if line else []
            bar.advance()
    samples = [s for s in read if isinstance(s, Sample)]
    classes = sorted({s.label for s in samples})
    _check_classes(source, classes, len(found), ledger)
    samples = thin_out(assign_splits(samples, data.split, seed=seed), data.train_fraction, seed=seed)
    _check_splits(samples, classes)
    return Ingested(samples, classes, ledger)


def _look_at(source: Source, found: Found, background: str) -> tuple[Sample | None, LedgerLine | None]:
    file = source.root / found.path
    try:
        decoded = decode(file, background=background)
        file_sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    except (DecodeError, OSError) as error:
        return None, LedgerLine(found.path, "rejected", str(error))
    width, height = decoded.image.size
    line = LedgerLine(found.path, "converted", "; ".join(decoded.conversions)) if decoded.conversions else None
    sha256 = hash_pixels(decoded.image)
    return Sample(found.path, found.label, found.split or "", sha256, file_sha256, sha256, width, height), line


def _check_classes(source: Source, classes: list[str], num_found: int, ledger: list[LedgerLine]) -> None:
    rejected = [line for line in ledger if line.verdict == "rejected"]
    if not num_found:
        raise SettingsError(
            f"{source.root} holds no files in class folders; it must look like {source.root}/<class>/*.jpg"
        )
    if not classes:
        raise SettingsError(f"none of {num_found} files in {source.root} is an image; first: {_worst(rejected)}")
    if len(classes) == 1:
        also = f" ({len(rejected)} files were rejected, first: {_worst(rejected)})" if rejected else ""
        raise SettingsError(f"{source.root} holds one class only, {classes[0]}: a classifier needs two or more{also}")


def _check_splits(samples: Sequence[Sample], classes: list[str]) -> None:
    for split in ("train", "valid"):
        present = {s.label for s in samples if s.split == split}
        if split == "train" and (absent := sorted(set(classes) - present)):
            raise SettingsError(f"no training image of class {absent[0]}: add some to its folder under train/")
        if not present:
            raise SettingsError(f"no image is left for {split}: add images, or raise data.split.{split}")


def _worst(rejected: list[LedgerLine]) -> str:
    return f"{rejected[0].path} ({rejected[0].reason})" if rejected else "none"
