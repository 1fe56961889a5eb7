"""Duplicates: copies and near copies of an image, and where they leak between splits or contradict each other.

Copies have equal pixels. Near copies (rescaled, recompressed, brighter or darker) have perceptual hashes that differ
in a few bits, and look the same when both are shrunk to 16x16 gray.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.facts import THUMB_PX, Facts
from pipeline.data.manifest import Sample
from pipeline.data.register import Register
from pipeline.files import write_jsonl

# Measured with `benchmarks/near_copies.py`: these thresholds find all photos that were brightened by a tenth and three
# of four that were cropped by 2 %. They take none of 45,000 pairs of different photos, and none of 1.6 million pairs of
# digits, for copies.
_MAX_BITS = 6
"""Hashes of near copies differ in at most this many of 64 bits."""
_BANDS = ((0, 10), (10, 9), (19, 9), (28, 9), (37, 9), (46, 9), (55, 9))
"""Offset and width of each band. There is one band more than bits may differ, so near hashes are equal in at least one
band (pigeonhole principle)."""
_MIN_CORRELATION = 0.99
_MAX_DIFFERENCE = 32.0
"""Gray levels of 255, on average over the 16x16 pixels."""
_NEIGHBOURS = 500
"""If very many hashes are equal in a band, each is compared with at most this many that follow it in order."""
_PORTION = 4096
_THUMB = THUMB_PX * THUMB_PX

Pairs = NDArray[np.int64]
"""[N, 2], numbers of files, the smaller first."""


class Thumbnails:
    """The perceptual hash and thumbnail of every file, by number.

    Hashes are in memory. Thumbnails take 32 times as much and only few are compared: they are in a temporary file. A
    file that is not an image has zeros.
    """

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._thumbs = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)

    def close(self) -> None:
        self._thumbs.close()

    def append(self, facts: Facts) -> None:
        """Add the next file."""
        self._hashes.extend(facts.phash or bytes(8))
        self._thumbs.write(facts.thumb or bytes(_THUMB))

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """[N]."""
        return np.frombuffer(self._hashes, dtype=">u8").astype(np.uint64)

    @property
    def thumbs(self) -> NDArray[np.uint8]:
        """[N, 256], mapped from the file."""
        self._thumbs.flush()
        return np.memmap(self._thumbs, np.uint8, "r", shape=(len(self._hashes) // 8, _THUMB))


@dataclass(frozen=True)
class Duplicate:
    """Two samples that show the same picture."""

    first: Sample
    second: Sample
    exact: bool
    """Whether their pixels are equal; otherwise they are near copies."""

    @property
    def crosses_splits(self) -> bool:
        return self.first.split != self.second.split

    @property
    def crosses_labels(self) -> bool:
        return self.first.label != self.second.label


@dataclass(frozen=True)
class _DuplicateLine:
    """A line of `duplicates.jsonl`."""

    first: str
    second: str
    exact: bool
    splits: tuple[str, str]
    labels: tuple[str, str]


def find_duplicates(register: Register, thumbnails: Thumbnails) -> list[Duplicate]:
    """Find all copies (each is paired with the first of its kind) and all near copies."""
    exact = register.used_copies()
    distinct = np.fromiter(register.distinct_images(), np.int64)
    near = find_near_pairs(thumbnails.hashes, thumbnails.thumbs, among=distinct).tolist()
    samples = register.samples_by_number(i for pair in (*exact, *near) for i in pair)
    return [Duplicate(samples[i], samples[j], True) for i, j in exact] + [
        Duplicate(samples[i], samples[j], False) for i, j in near
    ]


def write_duplicates(path: Path, duplicates: Sequence[Duplicate]) -> None:
    """Write a JSON object per pair: `first` and `second` (paths), `exact`, `splits` and `labels` (of both).

    Splits are those that the source gives, or empty. The most serious pairs come first: those across labels, then those
    across splits, then near copies, then copies.
    """
    ordered = sorted(duplicates, key=lambda d: (not d.crosses_labels, not d.crosses_splits, d.exact))
    write_jsonl(
        path,
        (
            _DuplicateLine(
                d.first.path, d.second.path, d.exact, (d.first.split, d.second.split), (d.first.label, d.second.label)
            )
            for d in ordered
        ),
    )


def find_near_pairs(hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8], *, among: NDArray[np.int64]) -> Pairs:
    """Find near copies: sorted pairs [M, 2] of the numbers in `among` (ascending); hashes [N], thumbs [N, 256]."""
    found = [pairs[_look_alike(thumbs, pairs)] for pairs in _in_portions(_find_candidates(hashes, among))]
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)


def join_groups(duplicates: Sequence[Duplicate]) -> dict[str, str]:
    """Map old group names to new ones so that all duplicates, through any number of steps, are in one group.

    A joined group takes a name that the source gave (the first in order, if there are several), or else the smallest
    hash among its images. So the group of an image changes only when one of its duplicates comes or goes.
    """
    # (whether the name is a hash, name): names that the source gave sort first
    keys = {s.group: (s.group == s.sha256, s.group) for d in duplicates for s in (d.first, d.second)}
    parent = {group: group for group in keys}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    for d in duplicates:
        first, second = sorted((root(d.first.group), root(d.second.group)), key=keys.__getitem__)
        parent[second] = first
    return {group: name for group in keys if (name := root(group)) != group}


def choose_drops(duplicates: Sequence[Duplicate]) -> dict[str, str]:
    """Choose the samples to drop so that no picture is used twice and none leaks: reasons by path.

    One of several copies stays: one in test rather than valid, one in valid rather than train, then the first by path.
    If their labels differ none stays, since nobody knows which label is correct. Of near copies across splits the one
    in train goes, or else the one in valid.
    """
    gone: dict[str, str] = {}
    rank = {"test": 0, "valid": 1, "train": 2, "": 2}
    of_kind: dict[str, dict[str, Sample]] = {}
    for d in duplicates:
        if d.exact:
            of_kind.setdefault(d.first.sha256, {}).update({d.first.path: d.first, d.second.path: d.second})
    for copies in of_kind.values():
        stays = min(copies.values(), key=lambda s: (rank[s.split], s.path))
        labels = sorted({s.label for s in copies.values()})
        for s in copies.values():
            if len(labels) > 1:
                gone[s.path] = f"the same pixels under {len(labels)} labels: {', '.join(labels)}"
            elif s is not stays:
                gone[s.path] = f"the same pixels as {stays.path}"
    for d in duplicates:
        if not d.exact and d.crosses_splits:
            worse, better = sorted((d.first, d.second), key=lambda s: -rank[s.split])
            gone.setdefault(worse.path, f"nearly the same as {better.path} in {better.split}")
    return gone


def _find_candidates(hashes: NDArray[np.uint64], among: NDArray[np.int64]) -> Iterator[Pairs]:
    """Yield pairs whose hashes differ in at most `_MAX_BITS` bits; a pair may come more than once."""
    hashes = hashes[among]
    for offset, width in _BANDS:
        band = np.uint64((2**width - 1) << offset)
        order = np.lexsort((hashes, hashes & band))
        in_order = hashes[order]
        for distance in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            differing = in_order[:-distance] ^ in_order[distance:]
            same = (differing & band) == 0
            if not same.any():
                break
            close = np.flatnonzero(same & (np.bitwise_count(differing) <= _MAX_BITS))
            if len(close):
                yield np.sort(np.stack([among[order[close]], among[order[close + distance]]], axis=1), axis=1)


def _in_portions(found: Iterator[Pairs]) -> Iterator[Pairs]:
    """Yield the same pairs in smaller arrays, because comparing a pair takes 6 KB of memory."""
    for pairs in found:
        yield from (pairs[start : start + _PORTION] for start in range(0, len(pairs), _PORTION))


def _look_alike(thumbs: NDArray[np.uint8], pairs: Pairs) -> NDArray[np.bool_]:
    """[N], whether the thumbnails of each pair correlate and differ little. False for images of a single colour."""
    a, b = (thumbs[pairs[:, k]].astype(np.float32) for k in (0, 1))
    difference = np.abs(a - b).mean(axis=1)
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlation = (a * b).sum(axis=1) / np.maximum(norms, 1e-9)
    return np.asarray((correlation >= _MIN_CORRELATION) & (difference <= _MAX_DIFFERENCE))
