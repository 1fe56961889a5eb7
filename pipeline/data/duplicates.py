"""Copies and near copies: which images are the same picture, and where that would leak or contradict.

Copies have equal pixels. Near copies (rescaled, recompressed, brighter or darker) have perceptual hashes that differ
in a few bits, and look the same when both are shrunk to 16x16 gray.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.facts import THUMB_PX, Facts
from pipeline.data.manifest import Sample
from pipeline.data.register import Register

# By `benchmarks/near_copies.py`: of photos brightened by a tenth these find all, of those cropped by 2 % three of four,
# and take none of 45,000 pairs of different photos, or of 1.6 million pairs of digits, for copies.
_MAX_BITS = 6
"""Hashes of near copies differ in at most so many of 64 bits."""
_BANDS = ((0, 10), (10, 9), (19, 9), (28, 9), (37, 9), (46, 9), (55, 9))
"""Offset and width of one band more than bits may differ: two near hashes agree in one band at least (pigeonholes)."""
_MIN_CORRELATION = 0.99
_MAX_DIFFERENCE = 32.0
"""Gray levels of 255, on average over the 16x16 pixels."""
_NEIGHBOURS = 500
"""Where very many hashes agree in a band, each is compared with so many that follow it in order."""
_PORTION = 4096
_THUMB = THUMB_PX * THUMB_PX
_KINDS = "SELECT min(id) AS first FROM file WHERE used GROUP BY sha256 ORDER BY first"
_COPIES = """
SELECT first, id FROM (SELECT id, min(id) OVER (PARTITION BY sha256) AS first FROM file WHERE used)
WHERE first != id ORDER BY id
"""

Pairs = NDArray[np.int64]
"""[N, 2], numbers of files, the smaller first."""


class Looks:
    """What all files look like, by number: hashes in memory, thumbs (32 times as much) in a file, for few are compared.

    A file that is no image has an empty look.
    """

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._thumbs = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)

    def close(self) -> None:
        self._thumbs.close()

    def append(self, facts: Facts) -> None:
        self._hashes.extend(facts.phash or bytes(8))
        self._thumbs.write(facts.thumb or bytes(_THUMB))

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """[N]."""
        return np.frombuffer(self._hashes, dtype=">u8").astype(np.uint64)

    @property
    def thumbs(self) -> NDArray[np.uint8]:
        """[N, 256], not in memory until it is asked for."""
        self._thumbs.flush()
        return np.memmap(self._thumbs, np.uint8, "r", shape=(len(self._hashes) // 8, _THUMB))


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


def find_twins(register: Register, looks: Looks) -> list[Twins]:
    """All copies (each with the first of its kind) and near copies."""
    exact = register.db.execute(_COPIES).fetchall()
    kinds = np.fromiter((i for (i,) in register.db.execute(_KINDS)), np.int64)
    near = near_pairs(looks.hashes, looks.thumbs, among=kinds).tolist()
    samples = register.samples_by_number(i for pair in (*exact, *near) for i in pair)
    return [Twins(samples[i], samples[j], True) for i, j in exact] + [
        Twins(samples[i], samples[j], False) for i, j in near
    ]


def near_pairs(hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8], *, among: NDArray[np.int64]) -> Pairs:
    """Pairs [M, 2] of near copies, sorted, of those numbered in `among` (ascending); hashes [N], thumbs [N, 256]."""
    found = [pairs[_look_alike(thumbs, pairs)] for pairs in _in_portions(_candidates(hashes, among))]
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)


def joined_groups(twins: Sequence[Twins]) -> dict[str, str]:
    """New names for groups, so that all samples that belong together are in one, through however many steps.

    The name is the source's for them (the first, if it has several), or else the smallest hash among them: so the
    group of an image changes only where another of its kind comes or goes.
    """
    # names that the source gave come first
    keys = {s.group: (s.group == s.sha256, s.group) for t in twins for s in (t.first, t.second)}
    namesake = {group: group for group in keys}

    def root(group: str) -> str:
        while namesake[group] != group:
            namesake[group] = group = namesake[namesake[group]]
        return group

    for t in twins:
        first, second = sorted((root(t.first.group), root(t.second.group)), key=keys.__getitem__)
        namesake[second] = first
    return {group: name for group in keys if (name := root(group)) != group}


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
