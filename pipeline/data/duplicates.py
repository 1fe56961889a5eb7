"""Copies and near copies: which images are the same picture, and where that would leak or contradict.

Copies have equal pixels. Near copies (rescaled, recompressed, slightly brightened) have perceptual hashes that differ
in a few bits, and look the same when both are shrunk to 16x16 gray.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.data.facts import THUMB_PX, Facts
from pipeline.data.manifest import Sample

_MAX_BITS = 4
"""Hashes of near copies differ in at most so many of 64 bits."""
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
"""Offset and width of one band more than bits may differ: two near hashes agree in one band at least (pigeonholes)."""
_MIN_CORRELATION = 0.995
_MAX_DIFFERENCE = 8.0
"""Gray levels of 255, on average over the 16x16 pixels."""
_NEIGHBOURS = 500
"""Where very many hashes agree in a band, each is compared with so many that follow it in order."""
_PORTION = 4096

Pairs = NDArray[np.int64]
"""[N, 2], indices of samples, the smaller first."""


@dataclass(frozen=True)
class Looks:
    """What all samples look like, in order: bytes end to end, for there may be a million."""

    _hashes: bytearray = field(default_factory=bytearray)
    _thumbs: bytearray = field(default_factory=bytearray)

    def append(self, facts: Facts) -> None:
        self._hashes.extend(facts.phash)
        self._thumbs.extend(facts.thumb)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """[N]."""
        return np.frombuffer(self._hashes, dtype=">u8").astype(np.uint64)

    @property
    def thumbs(self) -> NDArray[np.uint8]:
        """[N, 256], not copied."""
        return np.frombuffer(self._thumbs, dtype=np.uint8).reshape(-1, THUMB_PX * THUMB_PX)


@dataclass(frozen=True)
class Twins:
    """Two samples that show the same picture."""

    first: Sample
    second: Sample
    exact: bool

    @property
    def crosses_splits(self) -> bool:
        return self.first.split != self.second.split

    @property
    def crosses_labels(self) -> bool:
        return self.first.label != self.second.label


def find_twins(samples: Sequence[Sample], looks: Looks) -> list[Twins]:
    """All copies (each with the first of its kind) and near copies."""
    first_of: dict[str, int] = {}
    exact = [(first, i) for i, s in enumerate(samples) if (first := first_of.setdefault(s.sha256, i)) != i]
    kinds = np.array(sorted(first_of.values()), dtype=np.int64)
    near = near_pairs(looks.hashes, looks.thumbs, among=kinds)
    return [Twins(samples[i], samples[j], True) for i, j in exact] + [
        Twins(samples[i], samples[j], False) for i, j in near.tolist()
    ]


def near_pairs(hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8], *, among: NDArray[np.int64]) -> Pairs:
    """Pairs [M, 2] of near copies, sorted, of those numbered in `among` (ascending); hashes [N], thumbs [N, 256]."""
    found = [pairs[_look_alike(thumbs, pairs)] for pairs in _in_portions(_candidates(hashes, among))]
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)


def join_groups(samples: Sequence[Sample], twins: Sequence[Twins]) -> list[Sample]:
    """Give all samples that belong together one group, through however many steps.

    Its name is the source's for them (the first, if it has several), or else the smallest hash among them: so the
    group of an image changes only where another of its kind comes or goes.
    """
    twin_paths = {s.path for t in twins for s in (t.first, t.second)}
    index = {s.path: i for i, s in enumerate(samples) if s.path in twin_paths}
    first_of: dict[str, int] = {}
    rows = [first_of.setdefault(s.group, i) for i, s in enumerate(samples)] + [index[t.first.path] for t in twins]
    columns = np.concatenate([np.arange(len(samples)), np.array([index[t.second.path] for t in twins], np.int64)])
    graph = coo_array((np.ones(len(rows), np.int8), (np.array(rows, np.int64), columns)), shape=(len(samples),) * 2)
    component = connected_components(graph, directed=False)[1].tolist()
    namesake: dict[int, Sample] = {}
    for s, c in zip(samples, component, strict=True):
        # names that the source gave come first
        namesake[c] = min(namesake.get(c, s), s, key=lambda x: (x.group == x.sha256, x.group))
    return [s.with_group(namesake[c].group) for s, c in zip(samples, component, strict=True)]


def to_drop(twins: Sequence[Twins]) -> dict[str, str]:
    """The samples that must go so that no picture is used twice and none leaks, with the reason.

    Of copies the first stays, one in test before one in valid before one in train; of copies under different labels
    none, since nobody knows which is right. Of near copies only those in train go whose twin is in valid or test.
    """
    gone: dict[str, str] = {}
    rank = {"test": 0, "valid": 1, "train": 2, "": 2}
    of_kind: dict[str, dict[str, Sample]] = {}
    for t in twins:
        if t.exact:
            of_kind.setdefault(t.first.sha256, {}).update({t.first.path: t.first, t.second.path: t.second})
    for copies in of_kind.values():
        stays = min(copies.values(), key=lambda s: (rank[s.split], s.path))
        labels = sorted({s.label for s in copies.values()})
        for s in copies.values():
            if len(labels) > 1:
                gone[s.path] = f"the same pixels under {len(labels)} labels: {', '.join(labels)}"
            elif s is not stays:
                gone[s.path] = f"the same pixels as {stays.path}"
    for t in twins:
        if not t.exact and t.crosses_splits:
            worse, better = sorted((t.first, t.second), key=lambda s: -rank[s.split])
            gone.setdefault(worse.path, f"nearly the same as {better.path} in {better.split}")
    return gone


def _candidates(hashes: NDArray[np.uint64], among: NDArray[np.int64]) -> Iterator[Pairs]:
    """Pairs of hashes that differ in `_MAX_BITS` at most, some of them more than once."""
    hashes = hashes[among]
    for offset, width in _BANDS:
        band = (hashes >> np.uint64(offset)) & np.uint64(2**width - 1)
        order = np.lexsort((hashes, band))
        for distance in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            left, right = order[:-distance], order[distance:]
            same = band[left] == band[right]
            if not same.any():
                break
            left, right = left[same], right[same]
            close = np.bitwise_count(hashes[left] ^ hashes[right]) <= _MAX_BITS
            if close.any():
                yield np.sort(np.stack([among[left[close]], among[right[close]]], axis=1), axis=1)


def _in_portions(found: Iterator[Pairs]) -> Iterator[Pairs]:
    """The same pairs, few enough at once for the memory that comparing them takes (6 KB each)."""
    for pairs in found:
        yield from (pairs[start : start + _PORTION] for start in range(0, len(pairs), _PORTION))


def _look_alike(thumbs: NDArray[np.uint8], pairs: Pairs) -> NDArray[np.bool_]:
    """Whether the thumbs of each pair correlate, and differ little. Images of one colour are alike to all: no."""
    a, b = (thumbs[pairs[:, k]].astype(np.float32) for k in (0, 1))
    difference = np.abs(a - b).mean(axis=1)
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlation = (a * b).sum(axis=1) / np.maximum(norms, 1e-9)
    return np.asarray((correlation >= _MIN_CORRELATION) & (difference <= _MAX_DIFFERENCE))
