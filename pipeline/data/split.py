"""Who trains, who chooses, who judges: a split that stays as it is when images are added or removed.

A group of samples (one image and its copies, or a value of the grouping column) goes where its own hash says:
H(seed, group) is uniform in [0, 1), `valid` takes the low end, `test` the high end, the rest trains. So each class has
the wanted shares in expectation, and no image moves because another came or went. Only where a class would be missing
from a split is the fewest possible moved, see `_fill_gaps`.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from pipeline.data.register import Register, marks
from pipeline.settings import Split

_BY_NEED = ("train", "valid", "test")
"""A class with fewer images than splits fills them in this order."""


def assign_splits(register: Register, split: Split, *, seed: int) -> None:
    """Give each sample without a split one, by the hash of its group.

    Where a source has split folders these stand, and a split that it lacks is cut from its training images.
    """
    given = {name for (name,) in register.db.execute("SELECT DISTINCT split FROM file WHERE used")}
    shares = {name: 0.0 if name in given else share for name, share in (("valid", split.valid), ("test", split.test))}
    wanted = ["train", *(name for name, share in shares.items() if share > 0)]
    register.db.create_function("place", 1, lambda group: _place(unit_hash(seed, group), shares))
    register.db.execute("""UPDATE file SET split = place("group") WHERE used AND split IN ('', 'train')""")

    counts = _count_groups(register, wanted)
    labels = _labels_near_gaps(register, counts, wanted)
    order = {group: unit_hash(seed, group) for group in labels}
    places = {group: _place(x, shares) for group, x in order.items()}
    before = dict(places)
    _fill_gaps(places, labels, order, counts, wanted)
    moved = [(name, group, before[group]) for group, name in places.items() if name != before[group]]
    register.db.executemany('UPDATE file SET split = ? WHERE used AND "group" = ? AND split = ?', moved)


def thin_out(register: Register, fraction: float, *, seed: int) -> None:
    """Keep `fraction` of the training samples, by their groups."""
    if fraction == 1:
        return
    rows = register.db.execute("""SELECT label, "group" FROM file WHERE used AND split = 'train'""")
    register.db.create_function("is_kept", 1, choose_groups(rows, fraction, seed=seed))
    register.db.execute("""UPDATE file SET used = FALSE WHERE used AND split = 'train' AND NOT is_kept("group")""")


def choose_groups(groups: Iterable[tuple[str, str]], fraction: float, *, seed: int) -> Callable[[str], bool]:
    """Whether a group is among `fraction` of all (label, group), by a hash of its own; the first of each label is.

    A smaller fraction keeps a part of what a larger one keeps.
    """

    def order(group: str) -> float:
        return unit_hash(seed, "train_fraction", group)

    first: dict[str, str] = {}
    for label, group in groups:
        first[label] = min(first.get(label, group), group, key=order)
    always = set(first.values())
    return lambda group: group in always or order(group) < fraction


def _count_groups(register: Register, wanted: Sequence[str]) -> Counter[tuple[str, str]]:
    """Groups by label and split, in those splits that are ours to fill."""
    rows = register.db.execute(
        f"""SELECT label, split, count(DISTINCT "group") FROM file
        WHERE used AND split IN ({marks(wanted)}) GROUP BY label, split""",
        wanted,
    )
    return Counter({(label, name): count for label, name, count in rows})


def _labels_near_gaps(
    register: Register, counts: Counter[tuple[str, str]], wanted: Sequence[str]
) -> dict[str, frozenset[str]]:
    """The labels in each group that could be moved to fill a gap, or that another's move could open one for."""
    near = {label for label, _ in counts if not all(counts[label, name] for name in wanted)}
    while near:
        listed = sorted(near)
        rows = register.db.execute(
            f"""SELECT "group", label FROM file WHERE used AND split IN ({marks(wanted)}) AND "group" IN
            (SELECT "group" FROM file WHERE used AND label IN (SELECT value FROM json_each(?)))""",
            (*wanted, json.dumps(listed)),
        )
        labels: dict[str, frozenset[str]] = {}
        for group, label in rows:
            labels[group] = labels.get(group, frozenset()) | {label}
        reached = {label for names in labels.values() for label in names}
        if reached <= near:
            return labels
        near |= reached
    return {}


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
    places: dict[str, str],
    labels: dict[str, frozenset[str]],
    order: dict[str, float],
    counts: Counter[tuple[str, str]],
    wanted: Sequence[str],
) -> None:
    """Where a split has no image of a class, move the group that is nearest to it by its hash.

    A class of one trains, a class of two trains and validates. Only groups of the class itself move, and none leaves
    a split of equal or greater need without its class. As soon as the class has an image there by its own hash, the
    moved one is back at its own place.
    """
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
