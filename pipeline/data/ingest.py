"""Judge every file, find what is there twice, and divide the rest into splits."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.data.duplicates import Looks, Twins, find_twins, joined_groups, to_drop
from pipeline.data.facts import Facts
from pipeline.data.ledger import check_rejected
from pipeline.data.register import Register
from pipeline.data.split import assign_splits, thin_out
from pipeline.settings import Data, SettingsError


@dataclass(frozen=True)
class Ingested:
    """The result of looking at all files."""

    register: Register
    classes: list[str]
    twins: list[Twins]
    """What is there twice, dropped or not."""


def ingest(register: Register, facts: Iterable[Facts], data: Data, *, seed: int) -> Ingested:
    """Judge what was found by the `facts` of those without a problem, and divide the good ones into splits.

    Raises SettingsError where too much is wrong, or nothing can be learned from what is left; the register then holds
    the ledger as far as it came.
    """
    with closing(Looks()) as looks:
        for fact in register.add_facts(facts):
            looks.append(fact)
        _check_found(register, data)
        looked_at = sum(count for verdict, count in register.count_verdicts().items() if verdict != "ignored")
        check_rejected(list(register.ledger("rejected")), data, looked_at=looked_at)
        twins = find_twins(register, looks)
    gone = _handle_twins(twins, register, data)
    register.rename_groups(joined_groups([t for t in twins if not (t.first.path in gone or t.second.path in gone)]))
    classes = register.classes()
    _check_classes(classes, register, data)
    assign_splits(register, data.split, seed=seed)
    thin_out(register, data.train_fraction, seed=seed)
    _check_splits(register.counts(), classes)
    return Ingested(register, classes, twins)


def _handle_twins(twins: Sequence[Twins], register: Register, data: Data) -> dict[str, str]:
    """Enter into the ledger what was found twice; returns the samples left out for it, with the reason.

    Raises SettingsError where `data` allows no twins that matter.
    """
    gone = to_drop(twins) if data.duplicates == "drop" else {}
    register.reject({path: f"{reason} (data.duplicates=drop)" for path, reason in gone.items()})
    register.flag(_remarks(twins))
    grave = [t for t in twins if t.exact or t.crosses_splits or t.crosses_labels]
    if data.duplicates == "fail" and grave:
        shown = "".join(f"\n    {t.first.path!r} and {t.second.path!r}" for t in grave[:10])
        raise SettingsError(
            f"{len(grave)} pairs of images are the same, or nearly so across splits or labels, and "
            f"data.duplicates=fail allows none:{shown}\n  remove one of each, or set data.duplicates=drop or keep"
        )
    return gone


def _remarks(twins: Sequence[Twins]) -> dict[str, str]:
    """What is to be said, by path, of copies, and of near copies that leak or contradict."""
    remarks: dict[str, str] = {}
    for t in twins:
        where = [f"in {t.first.split}"] if t.crosses_splits else []
        where += [f"labelled {t.first.label!r}"] if t.crosses_labels else []
        if t.exact or where:
            how = "the same pixels as" if t.exact else "nearly the same as"
            remarks.setdefault(t.second.path, " ".join([how, t.first.path, *where]))
    return remarks


def _check_found(register: Register, data: Data) -> None:
    counts = register.count_verdicts()
    if sum(counts.values()) == counts["ignored"]:
        first = next(register.ledger(), None)
        also = f" (there is {first.path!r}, which {first.reason})" if first else ""
        raise SettingsError(
            f"data.root={data.root} holds no files in class folders; it must look like {data.root}/<class>/*.jpg{also}"
        )


def _check_classes(classes: Sequence[str], register: Register, data: Data) -> None:
    worst = next(register.ledger("rejected"), None)
    count = register.count_verdicts()["rejected"]
    first = f"{count} files were rejected, first: {worst.path} ({worst.reason})" if worst else ""
    if not classes:
        raise SettingsError(f"data.root={data.root} holds no labelled image; {first}")
    if len(classes) == 1:
        also = f" ({first})" if first else ""
        raise SettingsError(
            f"data.root={data.root} holds one class only, {classes[0]}: a classifier needs two or more{also}; give "
            "the folder whose sub-folders are the classes"
        )


def _check_splits(counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> None:
    for split in ("train", "valid"):
        present = {label for label, count in counts.get(split, {}).items() if count}
        if split == "train" and (absent := sorted(set(classes) - present)):
            raise SettingsError(f"no training image of class {absent[0]}: add some to its folder under train/")
        if not present:
            raise SettingsError(f"no image is left for {split}: add images, or raise data.split.{split}")
