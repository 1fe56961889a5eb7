"""Assign samples to train, valid and test so that the split stays as it is when images are added or removed.

All samples of a group (an image and its copies, or a value of the grouping column) go into the same split. A hash of
the seed and the group's name, uniform in [0, 1), decides which: low values go to `valid`, high values to `test`, the
rest to `train`. So each class has the wanted shares in expectation, and no image moves because another came or went.
Only if a split would have no image of a class are as few groups as possible moved, see `_fill_gaps`.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from pipeline.data.register import Register
from pipeline.settings import Split

_BY_NEED = ("train", "valid", "test")
"""A class with fewer images than there are splits fills them in this order."""


def assign_splits(register: Register, split: Split, *, seed: int) -> None:
    """Give every sample without a split one, by the hash of its group.

    Splits that the source gives are kept. If it gives `train` but no `valid` or `test`, these are taken from `train`.
    """
    given = register.given_splits()
    shares = {name: 0.0 if name in given else share for name, share in (("valid", split.valid), ("test", split.test))}
    wanted = ["train", *(name for name, share in shares.items() if share > 0)]
    register.assign_splits(lambda group: _split_for(unit_hash(seed, group), shares))

    counts = register.count_groups(wanted)
    labels = _labels_near_gaps(register, counts, wanted)
    hashes = {group: unit_hash(seed, group) for group in labels}
    splits = {group: _split_for(x, shares) for group, x in hashes.items()}
    before = dict(splits)
    _fill_gaps(splits, labels, hashes, counts, wanted)
    register.move_groups((group, before[group], new) for group, new in splits.items() if new != before[group])


def thin_out(register: Register, fraction: float, *, seed: int) -> None:
    """Keep `fraction` of the training samples, chosen by their groups."""
    if fraction < 1:
        register.keep_training_groups(choose_groups(register.training_groups(), fraction, seed=seed))


def choose_groups(groups: Iterable[tuple[str, str]], fraction: float, *, seed: int) -> Callable[[str], bool]:
    """Choose `fraction` of all `groups` (label, group) and return a function that tells whether a group was chosen.

    A hash of the group's name decides. Every label keeps at least one group, and a smaller fraction chooses a subset
    of what a larger one chooses.
    """

    def order(group: str) -> float:
        return unit_hash(seed, "train_fraction", group)

    first: dict[str, str] = {}
    for label, group in groups:
        first[label] = min(first.get(label, group), group, key=order)
    always = set(first.values())
    return lambda group: group in always or order(group) < fraction


def unit_hash(*parts: int | str) -> float:
    """A number in [0, 1) that depends on `parts` only."""
    digest = hashlib.sha256("\0".join(str(p) for p in parts).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _labels_near_gaps(
    register: Register, counts: Counter[tuple[str, str]], wanted: Sequence[str]
) -> dict[str, frozenset[str]]:
    """The labels of each group that may be moved to fill a gap, or to fill a gap that such a move opens."""
    near = {label for label, _ in counts if not all(counts[label, name] for name in wanted)}
    while near:
        groups = register.groups_of_labels(near, wanted)
        reached = {label for labels in groups.values() for label in labels}
        if reached <= near:
            return groups
        near |= reached
    return {}


def _split_for(x: float, shares: dict[str, float]) -> str:
    """The split of a group with hash `x`.

    `valid` and `test` lie at opposite ends, so that changing the share of one does not change the other.
    """
    if x < shares["valid"]:
        return "valid"
    return "test" if x >= 1 - shares["test"] else "train"


def _fill_gaps(
    splits: dict[str, str],
    labels: dict[str, frozenset[str]],
    hashes: dict[str, float],
    counts: Counter[tuple[str, str]],
    wanted: Sequence[str],
) -> None:
    """If a split has no image of a class, move the group there whose hash is nearest to the split's range.

    A class with one group is in train, one with two is in train and valid. Only groups of the class itself move, and
    none leaves a split that needs it as much or more without the class. When the class gets an image whose own hash
    lies in that split, the moved group returns to its own.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for group, names in labels.items():
        for label in names:
            members[label].append(group)
    for label in sorted(members):
        for name in wanted:
            if counts[label, name]:
                continue
            movable = [g for g in members[label] if _may_leave(g, name, splits, labels, counts)]
            if movable:
                chosen = min(movable, key=lambda g: (_distance(hashes[g], name), g))
                counts.subtract((x, splits[chosen]) for x in labels[chosen])
                counts.update((x, name) for x in labels[chosen])
                splits[chosen] = name


def _may_leave(
    group: str, to: str, splits: dict[str, str], labels: dict[str, frozenset[str]], counts: Counter[tuple[str, str]]
) -> bool:
    is_needed_more = _BY_NEED.index(to) < _BY_NEED.index(splits[group])
    return is_needed_more or all(counts[label, splits[group]] > 1 for label in labels[group])


def _distance(x: float, split: str) -> float:
    return {"valid": x, "test": 1 - x, "train": abs(x - 0.5)}[split]
