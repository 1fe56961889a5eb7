"""What a person should know about the images before they trust a result: a sentence for each thing."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from pipeline.data.alike import Alike
from pipeline.data.duplicates import Duplicate
from pipeline.data.near_names import describe_near, find_near_names
from pipeline.data.register import Register
from pipeline.settings import DataSource

_LISTED = 5


def note_groups(across: Mapping[str, Mapping[str, int]], data: DataSource) -> str:
    """Which groups of the source are in several of its splits, and what becomes of them."""
    groups = [
        f"{group} ({', '.join(f'{count} in {split}' for split, count in splits.items())})"
        for group, splits in across.items()
    ]
    return (
        f"the given splits divide {len(across)} of the groups that data.group={data.group} names: {_shorten(groups)}. "
        + {
            "fail": "Correct the table, or choose data.on_split_group=move (a group goes to test, or else to valid, if "
            "any of it is there) or keep (valid and test then measure what training has seen)",
            "move": "Each was moved to test, or else to valid, as a whole (data.on_split_group=move)",
            "keep": "Valid and test measure what training has seen (data.on_split_group=keep)",
        }[data.on_split_group]
    )


def note_alike(duplicates: Sequence[Duplicate], alike: Alike, register: Register, data: DataSource) -> list[str]:
    """How many images look alike, and which could not stay together. `duplicates` are those in use, after the split."""
    near = [d for d in duplicates if not d.exact]
    if not near:
        return []
    apart = [d for d in near if d.crosses_splits]
    shown = max(apart or near, key=lambda d: d.similarity)
    end = f", {len(apart)} in different splits" if apart else ", each in one split"
    notes = [
        f"{_pairs(len(near))} of images look alike{end}, such as {shown.first.path!r} and {shown.second.path!r} "
        f"(similarity {shown.similarity:.2f}; data.near_copies={data.near_copies}, "
        f"data.near_copy_similarity={data.near_copy_similarity:g}): all are in duplicates.jsonl"
    ]
    if alike.too_large:
        samples = {s.path: s for d in near for s in (d.first, d.second) if s.group in alike.too_large}
        counts, images = Counter(s.label for s in samples.values()), Counter[str]()
        for by_class in register.counts().values():
            images.update(by_class)
        classes = [f"{count} of {images[label]} in {label}" for label, count in sorted(counts.items())]
        notes.append(
            f"so many images look alike ({_shorten(classes)}) that no split could have its share if they stayed "
            "together, so these were split one by one. If they show the same thing, such as frames of one film, valid "
            "and test look better than they are: name what belongs together in a table (data=csv data.group=<column>). "
            "If they show different things, say so: data.near_copies=off"
        )
    return notes


def note_classes(register: Register, classes: Sequence[str], wanted: Collection[str]) -> list[str]:
    """Classes that a split lacks, and near names of classes. `wanted` are the splits that were cut from the rest."""
    notes = [
        f"classes {describe_near(first, second)}: if they are the same class, give them the same name"
        for first, second in find_near_names(classes)
    ]
    if "test" in wanted and "test" not in register.counts():
        notes.append(
            "no image is left for test: those of train are too few, or copies of images in valid, or of the same groups"
        )
    for split, counts in register.counts().items():
        if lacking := [label for label in classes if not counts[label]]:
            use = {"valid": "rates and cycles are chosen without them", "test": "the final score says nothing of them"}
            notes.append(
                f"{split} has no image of {len(lacking)} of {len(classes)} classes ({_shorten(lacking)}): "
                f"{use.get(split, '')}"
            )
    return notes


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
