"""Duplicates: copies and near copies of an image, and where they leak between splits or contradict each other.

Copies have equal pixels, so they are one picture. Near copies (saved again, resized, slightly cropped, brighter or
darker) have perceptual hashes that differ in a few bits, and are alike in every part, see `pipeline.data.likeness`. A
likeness is not an identity: different images may be as alike, so only `data.near_copies` decides what it does.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.facts import THUMB_BYTES, THUMB_PX, Facts
from pipeline.data.likeness import may_be_alike, similarity
from pipeline.data.manifest import Sample
from pipeline.data.register import Register
from pipeline.files import write_jsonl

_MAX_BITS = 6
"""Hashes of near copies differ in at most this many of 64 bits."""
_BANDS = ((0, 10), (10, 9), (19, 9), (28, 9), (37, 9), (46, 9), (55, 9))
"""Offset and width of each band. There is one band more than bits may differ, so near hashes are equal in at least one
band (pigeonhole principle)."""
_NEIGHBOURS = 500
"""If very many hashes are equal in a band, each is compared with at most this many that follow it in order."""
_MAX_UNLIKE = 16
"""An image that was compared with this many that are not like it has a hash that says nothing: it is left alone."""
_MAX_ALIKE = 32
"""Near copies of one image that are searched."""
_PORTION = 512
_GRAY_BYTES = THUMB_PX * THUMB_PX

Pairs = NDArray[np.int64]
"""[N, 2], numbers of files, the smaller first."""


class Thumbnails:
    """The perceptual hash and thumbnail of every file, by number.

    Hashes are in memory. Thumbnails take 144 times as much and only few are compared: they are in a temporary file. A
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
        self._thumbs.write(facts.thumb or bytes(THUMB_BYTES))

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """[N]."""
        return np.frombuffer(self._hashes, dtype=">u8").astype(np.uint64)

    @property
    def thumbs(self) -> NDArray[np.uint8]:
        """[N, 1153], mapped from the file; see `Facts.thumb`."""
        self._thumbs.flush()
        return np.memmap(self._thumbs, np.uint8, "r", shape=(len(self._hashes) // 8, THUMB_BYTES))


@dataclass(frozen=True)
class Duplicate:
    """Two samples with the same pixels, or that look alike."""

    first: Sample
    second: Sample
    exact: bool
    """Whether their pixels are equal; otherwise they are near copies."""
    similarity: float = 1.0
    """Of their least similar parts; 1 for copies. See `pipeline.data.likeness`."""

    @property
    def crosses_splits(self) -> bool:
        """Whether both have a split, and not the same."""
        return "" not in (self.first.split, self.second.split) and self.first.split != self.second.split

    @property
    def crosses_labels(self) -> bool:
        """Whether both have a label, and not the same."""
        return "" not in (self.first.label, self.second.label) and self.first.label != self.second.label


@dataclass(frozen=True)
class _DuplicateLine:
    """A line of `duplicates.jsonl`."""

    first: str
    second: str
    exact: bool
    similarity: float
    splits: tuple[str, str]
    labels: tuple[str, str]


@dataclass(frozen=True)
class FoundPairs:
    """Pairs of files, by number: copies, each with the first of its kind, and near copies with their similarities."""

    copies: list[tuple[int, int]]
    near: list[tuple[int, int]]
    similarities: list[float]

    def describe(self, register: Register) -> list[Duplicate]:
        """The pairs with what the register knows of them now, copies first."""
        samples = register.samples_by_number(i for pair in (*self.copies, *self.near) for i in pair)
        near = zip(self.near, self.similarities, strict=True)
        return [Duplicate(samples[i], samples[j], True) for i, j in self.copies] + [
            Duplicate(samples[i], samples[j], False, round(alike, 3)) for (i, j), alike in near
        ]


def find_duplicates(register: Register, thumbnails: Thumbnails, *, at_least: float | None) -> FoundPairs:
    """Find all copies, and all near copies whose similarity is `at_least` that; none if it is None."""
    copies = register.used_copies()
    if at_least is None:
        return FoundPairs(copies, [], [])
    distinct = np.fromiter(register.distinct_images(), np.int64)
    near, similarities = find_near_pairs(thumbnails.hashes, thumbnails.thumbs, among=distinct, at_least=at_least)
    return FoundPairs(copies, [(i, j) for i, j in near.tolist()], similarities.tolist())


def write_duplicates(path: Path, duplicates: Sequence[Duplicate]) -> None:
    """Write an object per pair: `first` and `second` (paths), `exact`, `similarity`, `splits` and `labels` (of both).

    The most serious pairs come first: those across labels, then those across splits, then near copies, then copies.
    """
    ordered = sorted(duplicates, key=lambda d: (not d.crosses_labels, not d.crosses_splits, d.exact))
    write_jsonl(
        path,
        (
            _DuplicateLine(
                d.first.path,
                d.second.path,
                d.exact,
                d.similarity,
                (d.first.split, d.second.split),
                (d.first.label, d.second.label),
            )
            for d in ordered
        ),
    )


def find_near_pairs(
    hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8], *, among: NDArray[np.int64], at_least: float
) -> tuple[Pairs, NDArray[np.float32]]:
    """Find near copies: sorted pairs [M, 2] of the numbers in `among` (ascending), and their similarities [M].

    Hashes are [N], thumbs [N, 1153]. Time is bounded: an image that is unlike `_MAX_UNLIKE` of its candidates, or like
    `_MAX_ALIKE` of them, is compared with no others.
    """
    compared, unlike, alike = set[int](), *(np.zeros(len(hashes), np.int64) for _ in range(2))
    found, similarities = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for pairs in _in_portions(_find_candidates(hashes, thumbs, among)):
        busy = (unlike >= _MAX_UNLIKE) | (alike >= _MAX_ALIKE)
        skipped = np.any(busy[pairs], axis=1).tolist()
        keys = (pairs @ np.array([len(hashes), 1])).tolist()
        fresh = [not skip and key not in compared for skip, key in zip(skipped, keys, strict=True)]
        compared.update(key for key, is_fresh in zip(keys, fresh, strict=True) if is_fresh)
        if not any(fresh):
            continue
        pairs, values = pairs[fresh], _similarities(thumbs, pairs[fresh])
        is_near = values >= at_least
        np.add.at(alike, pairs[is_near], 1)
        np.add.at(unlike, pairs[~is_near], 1)
        found.append(pairs[is_near])
        similarities.append(values[is_near])
    pairs, values = np.concatenate(found), np.concatenate(similarities)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], values[order]


def _similarities(thumbs: NDArray[np.uint8], pairs: Pairs) -> NDArray[np.float32]:
    """[N]; -1 where a cheap test is enough."""
    values = np.full(len(pairs), -1, np.float32)
    possible = np.flatnonzero(may_be_alike(thumbs[pairs[:, 0]], thumbs[pairs[:, 1]]))
    if len(possible):
        values[possible] = similarity(*(thumbs[pairs[possible, k]] for k in (0, 1)))
    return values


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
    in train goes, or else the one in valid. Images without a label, which are only predicted, stay.
    """
    gone: dict[str, str] = {}
    rank = {"test": 0, "valid": 1, "train": 2, "": 2}
    of_kind: dict[str, dict[str, Sample]] = {}
    for d in duplicates:
        if d.exact:
            of_kind.setdefault(d.first.sha256, {}).update({d.first.path: d.first, d.second.path: d.second})
    for found in of_kind.values():
        copies = {path: s for path, s in found.items() if s.split in rank}
        if not copies:
            continue
        stays = min(copies.values(), key=lambda s: (rank[s.split], s.path))
        labels = sorted({s.label for s in copies.values()})
        for s in copies.values():
            if len(labels) > 1:
                gone[s.path] = f"the same pixels under {len(labels)} labels: {', '.join(labels)} (data.duplicates=drop)"
            elif s is not stays:
                gone[s.path] = f"the same pixels as {stays.path} (data.duplicates=drop)"
    for d in duplicates:
        if not d.exact and d.crosses_splits and {d.first.split, d.second.split} <= rank.keys():
            worse, better = sorted((d.first, d.second), key=lambda s: -rank[s.split])
            if not {worse.path, better.path} & gone.keys():
                gone[worse.path] = f"looks like {better.path} in {better.split} (data.near_copies=drop)"
    return gone


def _find_candidates(
    hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8], among: NDArray[np.int64]
) -> Iterator[Pairs]:
    """Yield pairs whose hashes differ in at most `_MAX_BITS` bits; a pair may come more than once.

    Images with equal hashes are in the order of how much contrast they have, so that near copies are near.
    """
    hashes, contrasts = hashes[among], _contrasts(thumbs, among)
    for offset, width in _BANDS:
        band = np.uint64((2**width - 1) << offset)
        order = np.lexsort((contrasts, hashes, hashes & band))
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
    """Yield the same pairs in smaller arrays, because comparing a pair takes 100 KB of memory."""
    for pairs in found:
        yield from (pairs[start : start + _PORTION] for start in range(0, len(pairs), _PORTION))


def _contrasts(thumbs: NDArray[np.uint8], among: NDArray[np.int64]) -> NDArray[np.float32]:
    """The standard deviation of each image's first pixels, which are its gray ones."""
    starts = range(0, len(among), _PORTION)
    found = [thumbs[among[start : start + _PORTION], :_GRAY_BYTES].std(axis=1, dtype=np.float32) for start in starts]
    return np.concatenate([np.empty(0, np.float32), *found])
