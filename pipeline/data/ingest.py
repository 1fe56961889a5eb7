"""Look at every file once: decode it, hash it, give it a split, and say what was wrong with the others."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from pipeline.console import Bar
from pipeline.data.decode import DecodeError, decode
from pipeline.data.manifest import Sample
from pipeline.data.sources import SPLITS, Found, Source
from pipeline.settings import Data, SettingsError, Split


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
    samples = _thin_out(assign_splits(samples, data.split, seed=seed), data.train_fraction, seed=seed)
    _check_splits(samples, classes)
    return Ingested(samples, classes, ledger)


def assign_splits(samples: Sequence[Sample], split: Split, *, seed: int) -> list[Sample]:
    """Give each sample without a split one, the same shares of each class, by an order that `seed` and content fix.

    Where a source has split folders these stand, and a split that it lacks is cut from its training images.
    """
    given = {s.split for s in samples if s.split}
    shares = {"valid": 0.0 if "valid" in given else split.valid, "test": 0.0 if "test" in given else split.test}
    by_class: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.split in ("", "train"):
            by_class[sample.label].append(sample)
    assigned = [s for s in samples if s.split in ("valid", "test")]
    for members in by_class.values():
        ordered = sorted(members, key=lambda s: (_order_key(seed, s), s.path))
        bounds = _bounds(len(ordered), shares["valid"], shares["test"])
        for name, (low, high) in zip(("valid", "test", "train"), pairwise(bounds), strict=True):
            assigned += [s.with_split(name) for s in ordered[low:high]]
    return sorted(assigned, key=lambda s: s.path)


def _bounds(count: int, valid: float, test: float) -> list[int]:
    """Where valid, test and train end: rounded shares, at least one image each as long as one is left to train on."""
    sizes = [max(round(share * count), 1) if share > 0 else 0 for share in (valid, test)]
    if count <= sum(sizes):
        sizes = [0, 0]
    return [0, sizes[0], sum(sizes), count]


def _order_key(seed: int, sample: Sample) -> str:
    return hashlib.sha256(f"{seed}:{sample.sha256}".encode()).hexdigest()


def _thin_out(samples: Sequence[Sample], fraction: float, *, seed: int) -> list[Sample]:
    """Keep `fraction` of the training images of each class, at least one."""
    by_class: dict[str, list[Sample]] = defaultdict(list)
    for s in samples:
        if s.split == "train":
            by_class[s.label].append(s)
    kept = [s for s in samples if s.split != "train"]
    for members in by_class.values():
        ordered = sorted(members, key=lambda s: (_order_key(seed + 1, s), s.path))
        kept += ordered[: max(1, round(fraction * len(ordered)))]
    return sorted(kept, key=lambda s: s.path)


def _look_at(source: Source, found: Found, background: str) -> tuple[Sample | None, LedgerLine | None]:
    file = source.root / found.path
    try:
        decoded = decode(file, background=background)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    except (DecodeError, OSError) as error:
        return None, LedgerLine(found.path, "rejected", str(error))
    width, height = decoded.image.size
    line = LedgerLine(found.path, "converted", "; ".join(decoded.conversions)) if decoded.conversions else None
    return Sample(found.path, found.label, found.split or "", sha256, width, height), line


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
