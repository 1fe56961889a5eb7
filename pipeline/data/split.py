"""Assign samples to train, valid and test so that the split stays as it is when images are added or removed.

All samples of a group (an image and its copies, or a value of the grouping column) go into the same split. A hash of
the seed and the group's name, uniform in [0, 1), decides which: low values go to `valid`, high values to `test`, the
rest to `train`. So each class has the wanted shares in expectation, and no image moves because another came or went.

A rule that looks at one image at a time leaves the shares of small classes to chance: a fifth of 60 images is 6 to 18.
So where a class has far too many or too few images in a split, those whose hash is nearest to the boundary are moved,
see `_hold_shares`; and if a split would have no image of a class, as few groups as possible, see `_fill_gaps`.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.data.register import Register
from pipeline.settings import Split

_BY_NEED = ("train", "valid", "test")
"""A class with fewer images than there are splits fills them in this order."""

TOLERANCE = 0.2
"""A class's part of valid or test may differ from what it should be by this share of it, and by one image at least."""

KEPT_AT_LEAST = 10
"""Training groups of each class that `train_fraction` leaves: with fewer, a trial run shows nothing."""


def assign_splits(register: Register, split: Split, *, seed: int) -> None:
    """Give every sample without a split one, by the hash of its group.

    Splits that the source gives are kept, and the rest of a group follows. If the source gives `train` but no `valid`
    or `test`, these are taken from `train`, without the groups of which it puts a part into the other one.
    """
    shares = shares_to_cut(register, split)
    wanted = ["train", *shares]
    register.follow_given()
    pinned = register.held_out_groups()
    register.assign_splits(lambda group: "train" if group in pinned else _split_for(unit_hash(seed, group), shares))

    held = _hold_shares(register, shares, wanted, pinned, seed=seed)
    counts = register.count_groups(wanted)
    labels = _labels_near_gaps(register, counts, wanted)
    labels = {group: names for group, names in labels.items() if group not in pinned}
    hashes = {group: unit_hash(seed, group) for group in labels}
    splits = {group: held.get(group) or _split_for(x, shares) for group, x in hashes.items()}
    before = dict(splits)
    _fill_gaps(splits, labels, hashes, counts, wanted)
    register.move_groups((group, before[group], new) for group, new in splits.items() if new != before[group])


def shares_to_cut(register: Register, split: Split) -> dict[str, float]:
    """The shares of the splits that the source does not give."""
    given = register.given_splits()
    shares = {"valid": split.valid, "test": split.test}
    return {name: share for name, share in shares.items() if share > 0 and name not in given}


def thin_out(register: Register, fraction: float, *, seed: int) -> None:
    """Keep `fraction` of the training samples, chosen by their groups; of each class at least KEPT_AT_LEAST groups."""
    if fraction < 1:
        register.keep_training_groups(choose_groups(register.training_groups(), fraction, seed=seed))


def choose_groups(groups: Iterable[tuple[str, str]], fraction: float, *, seed: int) -> Callable[[str], bool]:
    """Choose `fraction` of all `groups` (label, group) and return a function that tells whether a group was chosen.

    A hash of the group's name decides. Every label keeps at least KEPT_AT_LEAST groups, if it has them, and a smaller
    fraction chooses a subset of what a larger one chooses.
    """

    def order(group: str) -> float:
        return unit_hash(seed, "train_fraction", group)

    first: dict[str, set[str]] = defaultdict(set)
    for label, group in groups:
        first[label].add(group)
        if len(first[label]) > KEPT_AT_LEAST:
            first[label].remove(max(first[label], key=order))
    always = {group for kept in first.values() for group in kept}
    return lambda group: group in always or order(group) < fraction


def unit_hash(*parts: int | str) -> float:
    """A number in [0, 1) that depends on `parts` only."""
    digest = hashlib.sha256("\0".join(str(p) for p in parts).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _hold_shares(
    register: Register, shares: dict[str, float], wanted: Sequence[str], pinned: frozenset[str], *, seed: int
) -> dict[str, str]:
    """Move groups of each class between train and the other splits until its parts are within TOLERANCE.

    Only groups of a single class move, those nearest to the boundary first, and none that are `pinned`. So a large
    class never moves; in a small one, images that come or go move another only if the class's part would leave the
    tolerance without it. Returns the new split of each group that was moved.
    """
    counts, moved = register.count_images(wanted), dict[str, str]()
    for label in sorted({label for label, _ in counts}):
        total = sum(counts[label, name] for name in wanted)
        surplus = {name: _surplus(counts[label, name], share * total) for name, share in shares.items()}
        if not any(surplus.values()):
            continue
        labels = register.groups_of_labels([label], wanted)
        own = [group for group, names in labels.items() if names == {label} and group not in pinned]
        hashes = {group: unit_hash(seed, group) for group in own}
        sizes = register.group_sizes(own, wanted)
        for name, count in surplus.items():
            source, to, nearest = (name, "train", -1) if count > 0 else ("train", name, 1)
            inside = [g for g in own if moved.get(g, _split_for(hashes[g], shares)) == source]
            inside.sort(key=lambda g: (nearest * _distance(hashes[g], name), g))
            moves = [(group, source, to) for group in _choose_moves(inside, sizes, label, abs(count))]
            register.move_groups(moves)
            moved |= {group: to for group, _, _ in moves}
    return moved


def _choose_moves(groups: Sequence[str], sizes: Mapping[str, Counter[str]], label: str, count: int) -> list[str]:
    """The first of `groups` that together have `count` images; those that are too large for the rest are left out."""
    chosen = []
    for group in groups:
        size = sizes[group][label]
        if size < 2 * count:  # it brings the number nearer
            chosen.append(group)
            count -= size
    return chosen


def _surplus(count: int, expected: float) -> int:
    """How many images are too many, or, if negative, too few."""
    tolerance = max(1.0, TOLERANCE * expected)
    return max(0, count - math.ceil(expected + tolerance)) + min(0, count - math.floor(expected - tolerance))


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
    if x < shares.get("valid", 0):
        return "valid"
    return "test" if x >= 1 - shares.get("test", 0) else "train"


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
