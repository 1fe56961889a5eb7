"""Judge every file, find duplicates, and divide the remaining samples into splits."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.data.duplicates import Duplicate, Thumbnails, choose_drops, find_duplicates, join_groups
from pipeline.data.facts import Facts
from pipeline.data.ledger import check_rejected
from pipeline.data.register import Register
from pipeline.data.split import assign_splits, thin_out
from pipeline.settings import DataSource, SettingsError


@dataclass(frozen=True)
class IngestResult:
    """The result of reading all files."""

    register: Register
    classes: list[str]
    duplicates: list[Duplicate]
    """All that were found, including those that were dropped."""


def ingest(register: Register, facts: Iterable[Facts], data: DataSource, *, seed: int) -> IngestResult:
    """Judge all files of `register` and divide the usable ones into splits.

    Args:
        register: holds what the source found, and nothing else yet. It is filled and returned with the result.
        facts: of the files `register.paths_to_read()`, in that order.
        data: the rules for rejected files, duplicates and splits.
        seed: fixes the splits.

    Raises SettingsError if too many files are unusable, or if nothing can be learned from the rest. The register then
    holds the ledger up to that point.
    """
    with closing(Thumbnails()) as thumbnails:
        for fact in register.add_facts(facts):
            thumbnails.append(fact)
        _check_found(register, data)
        num_files = sum(count for verdict, count in register.count_verdicts().items() if verdict != "ignored")
        check_rejected(list(register.ledger("rejected")), data, num_files=num_files)
        duplicates = find_duplicates(register, thumbnails)
    gone = _handle_duplicates(duplicates, register, data)
    register.rename_groups(join_groups([d for d in duplicates if not (d.first.path in gone or d.second.path in gone)]))
    classes = register.classes()
    _check_classes(classes, register, data)
    assign_splits(register, data.split, seed=seed)
    thin_out(register, data.train_fraction, seed=seed)
    _check_splits(register.counts(), classes)
    return IngestResult(register, classes, duplicates)


def _handle_duplicates(duplicates: Sequence[Duplicate], register: Register, data: DataSource) -> dict[str, str]:
    """Enter the duplicates into the ledger; return the samples that were dropped, with the reasons.

    Raises SettingsError if there are duplicates that matter and `data.duplicates` is `fail`.
    """
    gone = choose_drops(duplicates) if data.duplicates == "drop" else {}
    register.reject({path: f"{reason} (data.duplicates=drop)" for path, reason in gone.items()})
    register.flag(_describe(duplicates))
    serious = [d for d in duplicates if d.exact or d.crosses_splits or d.crosses_labels]
    if data.duplicates == "fail" and serious:
        shown = "".join(f"\n    {d.first.path!r} and {d.second.path!r}" for d in serious[:10])
        raise SettingsError(
            f"{len(serious)} pairs of images are the same, or nearly so across splits or labels, and "
            f"data.duplicates=fail allows none:{shown}\n  remove one of each, or set data.duplicates=drop or keep"
        )
    return gone


def _describe(duplicates: Sequence[Duplicate]) -> dict[str, str]:
    """Remarks, by path, on copies, and on near copies across splits or labels."""
    remarks: dict[str, str] = {}
    for d in duplicates:
        where = [f"in {d.first.split}"] if d.crosses_splits else []
        where += [f"labelled {d.first.label!r}"] if d.crosses_labels else []
        if d.exact or where:
            how = "the same pixels as" if d.exact else "nearly the same as"
            remarks.setdefault(d.second.path, " ".join([how, d.first.path, *where]))
    return remarks


def _check_found(register: Register, data: DataSource) -> None:
    counts = register.count_verdicts()
    if sum(counts.values()) == counts["ignored"]:
        first = next(register.ledger(limit=1), None)
        also = f" (found {first.path!r}: {first.reason})" if first else ""
        raise SettingsError(
            f"data.root={data.root} holds no files in class folders; it must look like {data.root}/<class>/*.jpg{also}"
        )


def _check_classes(classes: Sequence[str], register: Register, data: DataSource) -> None:
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


def _check_splits(counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> None:
    for split in ("train", "valid"):
        present = {label for label, count in counts.get(split, {}).items() if count}
        if split == "train" and (absent := sorted(set(classes) - present)):
            raise SettingsError(f"no training image of class {absent[0]}: add some to its folder under train/")
        if not present:
            raise SettingsError(f"no image is left for {split}: add images, or raise data.split.{split}")
