"""Whether a model can be learned from what was found; if not, the error names the cause and the way out."""

from collections import Counter
from collections.abc import Sequence

from pipeline.data.near_names import describe_near, find_near_names
from pipeline.data.register import Register
from pipeline.settings import DataSource, SettingsError

_LISTED = 5


def check_found(register: Register, data: DataSource) -> None:
    """Raise SettingsError if no file could be a sample."""
    counts = register.count_verdicts()
    if sum(counts.values()) == counts["ignored"]:
        first = next(register.ledger(limit=1), None)
        also = f" (found {first.path!r}: {first.reason})" if first else ""
        raise SettingsError(
            f"data.root={data.root} holds no files in class folders; it must look like {data.root}/<class>/*.jpg{also}"
        )


def check_classes(classes: Sequence[str], register: Register, data: DataSource) -> None:
    """Raise SettingsError if there are fewer than two classes."""
    worst = next(register.ledger("rejected", limit=1), None)
    count = register.count_verdicts()["rejected"]
    files = "1 file was" if count == 1 else f"{count} files were"
    first = f"{files} rejected, first: {worst.path} ({worst.reason})" if worst else ""
    if not classes:
        raise SettingsError(f"data.root={data.root} holds no labelled image" + (f"; {first}" if first else ""))
    if len(classes) == 1:
        also = f" ({first})" if first else ""
        raise SettingsError(
            f"data.root={data.root} holds one class only, {classes[0]}: a classifier needs two or more{also}; give "
            "the folder whose sub-folders are the classes"
        )


def check_splits(register: Register, classes: Sequence[str], data: DataSource) -> None:
    """Raise SettingsError if a class cannot be learned, or if there is nothing to choose by."""
    counts = register.counts()
    present = {split: {x for x, count in by_class.items() if count} for split, by_class in counts.items()}
    trained = present.get("train", set())
    if absent := sorted(set(classes) - trained):
        raise SettingsError(_explain_untrained(absent, trained, present))
    if not present.get("valid"):
        raise SettingsError(_explain_no_valid(register, classes, data))


def _explain_untrained(absent: Sequence[str], trained: set[str], present: dict[str, set[str]]) -> str:
    near = [pair for pair in find_near_names({*absent, *trained}) if {*pair} & {*absent} and {*pair} & trained]
    if near:
        where = {x: ", ".join(split for split in present if x in present[split]) for pair in near for x in pair}
        pairs = "; ".join(f"{describe_near(a, b)} ({a!r} is in {where[a]}, {b!r} in {where[b]})" for a, b in near)
        return f"no training image of class {absent[0]!r}: {pairs}. Give the same class the same name in every split"
    shown = ", ".join(repr(x) for x in absent[:_LISTED]) + (", ..." if len(absent) > _LISTED else "")
    only = sorted(split for split, names in present.items() if names & {*absent})
    return (
        f"no training image of class {shown} (found in {' and '.join(only)} only): add some to train (in folders: "
        "train/<class>/). Images whose class is not known go into a folder unlabelled/ beside train/: they are "
        "predicted, and used for nothing else"
    )


def _explain_no_valid(register: Register, classes: Sequence[str], data: DataSource) -> str:
    if data.split.valid == 0:
        return "no image is left for valid, because data.split.valid=0: raise it"
    causes = []
    for label in classes:
        samples = list(register.samples(split="train", label=label, limit=1000))
        groups = Counter(s.group for s in samples)
        if len(samples) == 1:
            causes.append(f"{label} has 1 image")
        elif len({s.sha256 for s in samples}) == 1:
            causes.append(f"the {len(samples)} images of {label} are copies of one picture ({samples[0].path} ...)")
        elif len(groups) == 1:
            by = f"data.group={data.group}" if data.group else "copies"
            causes.append(f"the {len(samples)} images of {label} are one group ({by}: {samples[0].group})")
    shown = "; ".join(causes[:_LISTED]) + (f"; and {len(causes) - _LISTED} more" if len(causes) > _LISTED else "")
    return (
        f"no image is left for valid, because the first picture of each class is for training, and the same picture or "
        f"group is never in two splits: {shown}. A class needs two different ones or more: add some"
    )
