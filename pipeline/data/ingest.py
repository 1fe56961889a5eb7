"""Judge every file, find duplicates, and divide the remaining samples into splits."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.data.alike import Alike, group_alike
from pipeline.data.checks import check_classes, check_found, check_splits
from pipeline.data.duplicates import Duplicate, Thumbnails, choose_drops, find_duplicates, join_groups
from pipeline.data.facts import Facts
from pipeline.data.ledger import check_rejected
from pipeline.data.notes import note_alike, note_classes, note_groups
from pipeline.data.register import Register
from pipeline.data.split import assign_splits, shares_to_cut, thin_out
from pipeline.settings import DataSource, SettingsError


@dataclass(frozen=True)
class IngestResult:
    """The result of reading all files."""

    register: Register
    classes: list[str]
    duplicates: list[Duplicate]
    """All that were found, including those that were dropped."""
    notes: list[str]
    """What a person should know about the images before they trust a result, a sentence each."""


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
        check_found(register, data)
        num_files = sum(count for verdict, count in register.count_verdicts().items() if verdict != "ignored")
        check_rejected(list(register.ledger("rejected")), data, num_files=num_files)
        at_least = None if data.near_copies == "off" else data.near_copy_similarity
        found = find_duplicates(register, thumbnails, at_least=at_least)
    duplicates = found.describe(register)
    gone = _drop(duplicates, register, data)
    notes = _hold_groups(register, data)
    register.rename_groups(join_groups([d for d in _among_used(duplicates, gone) if d.exact]))
    classes = register.classes()
    check_classes(classes, register, data)
    alike = _group_alike(register, _among_used(found.describe(register), gone), data)
    register.rename_groups(alike.names)
    cut = shares_to_cut(register, data.split)
    assign_splits(register, data.split, seed=seed)
    check_splits(register, classes, data)
    duplicates = found.describe(register)
    register.flag(_describe_near(duplicates))
    notes += [*note_alike(_among_used(duplicates, gone), alike, register, data), *note_classes(register, classes, cut)]
    thin_out(register, data.train_fraction, seed=seed)
    return IngestResult(register, classes, duplicates, notes)


def _among_used(duplicates: Sequence[Duplicate], gone: Mapping[str, str]) -> list[Duplicate]:
    return [d for d in duplicates if not {d.first.path, d.second.path} & gone.keys()]


def _drop(duplicates: Sequence[Duplicate], register: Register, data: DataSource) -> Mapping[str, str]:
    """Enter the copies into the ledger; return the samples that were dropped, with the reasons.

    Raises SettingsError if there are duplicates that matter and a setting allows none.
    """
    copies, near = ([d for d in duplicates if d.exact is exact] for exact in (True, False))
    gone = choose_drops([*(copies if data.duplicates == "drop" else ()), *(near if data.near_copies == "drop" else ())])
    register.reject(gone)
    register.flag(_describe_copies(copies))
    if data.duplicates == "fail" and copies:
        raise SettingsError(
            f"{len(copies)} pairs of images are the same, and data.duplicates=fail allows none:{_listed(copies)}\n  "
            "remove one of each, or set data.duplicates=drop or keep"
        )
    serious = [d for d in near if d.crosses_splits or d.crosses_labels]
    if data.near_copies == "fail" and serious:
        raise SettingsError(
            f"{len(serious)} pairs of images are alike across splits or labels, and data.near_copies=fail allows "
            f"none:{_listed(serious)}\n  remove one of each, or set data.near_copies=drop, group or flag"
        )
    return gone


def _hold_groups(register: Register, data: DataSource) -> list[str]:
    """Do what `data.on_split_group` says about groups that the source puts into several splits; notes on it."""
    across = register.groups_across_splits() if data.group else {}
    if not across:
        return []
    note = note_groups(across, data)
    if data.on_split_group == "fail":
        raise SettingsError(note)
    if data.on_split_group == "move":
        register.move_whole_groups({g: "test" if "test" in splits else "valid" for g, splits in across.items()})
    return [note]


def _group_alike(register: Register, duplicates: Sequence[Duplicate], data: DataSource) -> Alike:
    near = [d for d in duplicates if not d.exact]
    if data.near_copies != "group" or not near:
        return Alike({}, frozenset())
    shares = [*shares_to_cut(register, data.split).values()]
    return group_alike(register, near, register.given_groups(), shares=shares)


def _listed(duplicates: Sequence[Duplicate]) -> str:
    return "".join(f"\n    {d.first.path!r} and {d.second.path!r}" for d in duplicates[:10])


def _describe_copies(copies: Sequence[Duplicate]) -> dict[str, str]:
    """Remarks on copies, by path."""
    return {d.second.path: f"the same pixels as {d.first.path}{_where(d)}" for d in copies}


def _describe_near(duplicates: Sequence[Duplicate]) -> dict[str, str]:
    """Remarks, by path, on images that are like others in another split or class."""
    remarks: dict[str, str] = {}
    for d in duplicates:
        if not d.exact and (where := _where(d)):
            remarks.setdefault(d.second.path, f"looks like {d.first.path}{where} (similarity {d.similarity:.2f})")
    return remarks


def _where(d: Duplicate) -> str:
    where = [f"in {d.first.split}"] if d.crosses_splits and d.first.split else []
    where += [f"labelled {d.first.label!r}"] if d.crosses_labels else []
    return "".join(f" {x}" for x in where)
