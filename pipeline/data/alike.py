"""Which near copies stay in one split, and which cannot.

A likeness is not transitive: frames of one film are each like the next, and the first is not like the last. So a group
is an image and those that are like it, never a chain. And a likeness must not decide what a split holds: where so many
images of a class are alike that its shares could not be met, they are split one by one, and a note says so. Images of
different classes are never joined: either a label is wrong, or the likeness is.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.data.duplicates import Duplicate
from pipeline.data.register import Register

_AT_LEAST = 2
"""Images that a group may always have, however small its class."""


@dataclass(frozen=True)
class Alike:
    """Groups of images that are like one of them."""

    names: Mapping[str, str]
    """Old group names to new ones, for those that stay together."""
    too_large: frozenset[str]
    """The old names of those that do not: too many images of a class are alike."""


def group_alike(
    register: Register, near: Sequence[Duplicate], given: frozenset[str], *, shares: Sequence[float]
) -> Alike:
    """Group the samples of `near` pairs.

    Args:
        register: the groups' sizes are looked up there.
        near: pairs of used samples that are alike.
        given: groups that the source names. They are never joined: the source knows better.
        shares: those of the splits that are cut from the rest. A group may hold as much of a class as the smallest of
            them, and must leave the class as many groups as there are splits.
    """
    stars = _find_stars(near, given)
    kept = _fitting(register, stars, shares) if shares else stars
    hashes = {s.group: (s.group in given, s.group) for d in near for s in (d.first, d.second)}
    names = dict[str, str]()
    for star in kept:
        name = min(star, key=lambda g: (g not in given, hashes[g]))
        names.update((group, name) for group in star if group != name)
    left_out = frozenset(g for star in stars if star not in kept for g in star)
    return Alike(names, left_out)


def _find_stars(near: Sequence[Duplicate], given: frozenset[str]) -> list[tuple[str, ...]]:
    """Take the group with the most neighbours, with all of these, then the next among those that are left."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    for d in near:
        first, second = d.first.group, d.second.group
        if first != second and not d.crosses_labels and not {first, second} <= given:
            neighbours[first].add(second)
            neighbours[second].add(first)
    taken: set[str] = set()
    stars = []
    for group in sorted(neighbours, key=lambda g: (g not in given, -len(neighbours[g]), g)):
        if group not in taken and (others := sorted(neighbours[group] - taken - given)):
            stars.append((group, *others))
            taken.update(stars[-1])
    return stars


def _fitting(register: Register, stars: Sequence[tuple[str, ...]], shares: Sequence[float]) -> list[tuple[str, ...]]:
    """The stars that leave every class its shares, the smallest first."""
    found = register.group_sizes({group for star in stars for group in star})
    sizes = defaultdict[str, Counter[str]](Counter, found)  # nothing of a group whose split is given
    images, groups = register.to_split()
    fitting = []
    for star in sorted(stars, key=lambda s: (sum(sum(sizes[g].values()) for g in s), s)):
        held, members = Counter[str](), Counter[str]()
        for group in star:
            held.update(sizes[group])
            members.update(sizes[group].keys())
        limits = {label: max(_AT_LEAST, int(min(shares) * images[label])) for label in held}
        left = {label: groups[label] - members[label] + 1 for label in held}
        needed = len(shares) + 1
        if all(held[x] <= limits[x] and left[x] >= min(needed, groups[x]) for x in held):
            fitting.append(star)
            groups.update({label: 1 - members[label] for label in held})
    return fitting
