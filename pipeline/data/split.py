"""Who trains, who chooses, who judges: a split that stays as it is when images are added or removed.

A group of samples (one image and its copies, or a value of the grouping column) goes where its own hash says:
H(seed, group) is uniform in [0, 1), `valid` takes the low end, `test` the high end, the rest trains. So each class has
the wanted shares in expectation, and no image moves because another came or went. Only where a class would be missing
from a split is the fewest possible moved, see `_fill_gaps`.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from pipeline.data.manifest import Sample
from pipeline.settings import Split

_BY_NEED = ("train", "valid", "test")
"""A class with fewer images than splits fills them in this order."""


def assign_splits(samples: Sequence[Sample], split: Split, *, seed: int) -> list[Sample]:
    """Give each sample without a split one, by the hash of its group.

    Where a source has split folders these stand, and a split that it lacks is cut from its training images.
    """
    given = {s.split for s in samples if s.split}
    shares = {name: 0.0 if name in given else share for name, share in (("valid", split.valid), ("test", split.test))}
    labels = _labels_of_groups(s for s in samples if s.split in ("", "train"))
    order = {group: unit_hash(seed, group) for group in labels}
    places = {group: _place(x, shares) for group, x in order.items()}
    _fill_gaps(places, labels, order, ["train", *(name for name, share in shares.items() if share > 0)])
    assigned = [s.with_split(places[s.group]) if s.split in ("", "train") else s for s in samples]
    return sorted(assigned, key=lambda s: s.path)


def thin_out(samples: Sequence[Sample], fraction: float, *, seed: int) -> list[Sample]:
    """Keep `fraction` of the training groups, by a hash of their own; the first of each class in any case.

    A smaller fraction keeps a part of what a larger one keeps.
    """
    if fraction == 1:
        return list(samples)
    training = [s for s in samples if s.split == "train"]
    order = {s.group: unit_hash(seed, "train_fraction", s.group) for s in training}
    first: dict[str, str] = {}
    for s in training:
        first[s.label] = min(first.get(s.label, s.group), s.group, key=order.__getitem__)
    kept = {group for group, x in order.items() if x < fraction} | set(first.values())
    return [s for s in samples if s.split != "train" or s.group in kept]


def _labels_of_groups(samples: Iterable[Sample]) -> dict[str, frozenset[str]]:
    """The labels in each group; equal ones are one object, as mostly a group is a single image."""
    sets: dict[str, frozenset[str]] = {}
    labels: dict[str, frozenset[str]] = {}
    for s in samples:
        known = labels.setdefault(s.group, sets.setdefault(s.label, frozenset([s.label])))
        if s.label not in known:
            labels[s.group] = known | {s.label}
    return labels


def unit_hash(*parts: int | str) -> float:
    """A number in [0, 1) that follows from `parts` alone."""
    digest = hashlib.sha256("\0".join(str(p) for p in parts).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _place(x: float, shares: dict[str, float]) -> str:
    """`valid` and `test` lie at opposite ends, so that a change of one's share leaves the other alone."""
    if x < shares["valid"]:
        return "valid"
    return "test" if x >= 1 - shares["test"] else "train"


def _fill_gaps(
    places: dict[str, str], labels: dict[str, frozenset[str]], order: dict[str, float], wanted: Sequence[str]
) -> None:
    """Where a split has no image of a class, move the group that is nearest to it by its hash.

    A class of one trains, a class of two trains and validates. Only groups of the class itself move, and none leaves
    a split of equal or greater need without its class. As soon as the class has an image there by its own hash, the
    moved one is back at its own place.
    """
    counts = Counter((label, places[group]) for group, names in labels.items() for label in names)
    members: dict[str, list[str]] = defaultdict(list)
    for group, names in labels.items():
        for label in names:
            members[label].append(group)
    for label in sorted(members):
        for name in wanted:
            if counts[label, name]:
                continue
            movable = [g for g in members[label] if _may_leave(g, name, places, labels, counts)]
            if movable:
                chosen = min(movable, key=lambda g: (_distance(order[g], name), g))
                counts.subtract((x, places[chosen]) for x in labels[chosen])
                counts.update((x, name) for x in labels[chosen])
                places[chosen] = name


def _may_leave(
    group: str, to: str, places: dict[str, str], labels: dict[str, frozenset[str]], counts: Counter[tuple[str, str]]
) -> bool:
    outranked = _BY_NEED.index(to) < _BY_NEED.index(places[group])
    return outranked or all(counts[label, places[group]] > 1 for label in labels[group])


def _distance(x: float, split: str) -> float:
    return {"valid": x, "test": 1 - x, "train": abs(x - 0.5)}[split]
