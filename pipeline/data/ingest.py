"""Look at every file once, tell what was wrong, find what is there twice, and divide the rest into splits."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.data.duplicates import Looks, Twins, find_twins, join_groups, to_drop
from pipeline.data.facts import Facts
from pipeline.data.found import SPLITS, UNLABELLED, Found
from pipeline.data.ledger import LedgerLine, check_rejected, judge
from pipeline.data.manifest import Sample
from pipeline.data.split import assign_splits, thin_out
from pipeline.settings import Data, SettingsError


@dataclass(frozen=True)
class Ingested:
    """The result of looking at all files."""

    samples: list[Sample]
    classes: list[str]
    ledger: list[LedgerLine]
    twins: list[Twins]
    """What is there twice, dropped or not."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples by split and class."""
        counted = Counter((s.split, s.label) for s in self.samples)
        splits = [x for x in SPLITS if any(s.split == x for s in self.samples)]
        return {split: {c: counted[split, c] for c in self.classes} for split in splits}


def ingest(found: Sequence[Found], facts: Iterable[Facts], data: Data, *, seed: int) -> Ingested:
    """Judge what was `found` by the `facts` of those without a problem, and divide the good ones into splits.

    Raises SettingsError where too much is wrong, or nothing can be learned from what is left.
    """
    ledger, samples, looks = _sort_out(found, facts)
    _check_found(ledger, data)
    check_rejected(ledger, data)
    twins = find_twins(samples, looks)
    gone = _handle_twins(twins, data)
    samples = join_groups([s for s in samples if s.path not in gone], [t for t in twins if not _touches(t, gone)])
    labelled = [s for s in samples if s.split != UNLABELLED]
    classes = sorted({s.label for s in labelled})
    _check_classes(classes, ledger, data)
    divided = thin_out(assign_splits(labelled, data.split, seed=seed), data.train_fraction, seed=seed)
    _check_splits(divided, classes)
    samples = sorted(divided + [s for s in samples if s.split == UNLABELLED], key=lambda s: s.path)
    return Ingested(samples, classes, _with_twins(ledger, twins, gone), twins)


def _sort_out(found: Sequence[Found], facts: Iterable[Facts]) -> tuple[list[LedgerLine], list[Sample], Looks]:
    ledger: list[LedgerLine] = []
    samples: list[Sample] = []
    looks = Looks()
    answers = iter(facts)
    for f in found:
        if f.problem:
            ledger.append(LedgerLine(f.path, "ignored" if f.ignored else "rejected", f.problem))
            continue
        fact = next(answers)
        ledger.append(judge(f.path, problem=fact.problem, conversions=fact.conversions, flags=fact.flags))
        if not fact.problem:
            group = f.group or fact.sha256
            size = (fact.width, fact.height)
            samples.append(Sample(f.path, f.label, f.split or "", group, fact.file_sha256, fact.sha256, *size))
            looks.append(fact)
    return ledger, samples, looks


def _handle_twins(twins: Sequence[Twins], data: Data) -> dict[str, str]:
    """The samples to leave out. Raises SettingsError where `data` allows no twins that matter."""
    grave = [t for t in twins if t.exact or t.crosses_splits or t.crosses_labels]
    if data.duplicates == "fail" and grave:
        shown = "".join(f"\n    {t.first.path!r} and {t.second.path!r}" for t in grave[:10])
        raise SettingsError(
            f"{len(grave)} pairs of images are the same, or nearly so across splits or labels, and "
            f"data.duplicates=fail allows none:{shown}\n  remove one of each, or set data.duplicates=drop or keep"
        )
    return to_drop(twins) if data.duplicates == "drop" else {}


def _touches(twins: Twins, paths: dict[str, str]) -> bool:
    return twins.first.path in paths or twins.second.path in paths


def _with_twins(ledger: Sequence[LedgerLine], twins: Sequence[Twins], gone: dict[str, str]) -> list[LedgerLine]:
    """The ledger with what was left out as a copy, and with what leaks or contradicts flagged."""
    remarks: dict[str, str] = {}
    for t in twins:
        where = [f"in {t.first.split}"] if t.crosses_splits else []
        where += [f"labelled {t.first.label!r}"] if t.crosses_labels else []
        if t.exact or where:
            how = "the same pixels as" if t.exact else "nearly the same as"
            remarks.setdefault(t.second.path, " ".join([how, t.first.path, *where]))
    lines = []
    for line in ledger:
        if line.path in gone:
            lines.append(LedgerLine(line.path, "rejected", f"{gone[line.path]} (data.duplicates=drop)"))
        elif line.path in remarks:
            reason = "; ".join(x for x in (remarks[line.path], line.reason) if x)
            lines.append(LedgerLine(line.path, "flagged", reason))
        else:
            lines.append(line)
    return lines


def _check_found(ledger: Sequence[LedgerLine], data: Data) -> None:
    if all(line.verdict == "ignored" for line in ledger):
        also = f" (there is {ledger[0].path!r}, which {ledger[0].reason})" if ledger else ""
        raise SettingsError(
            f"data.root={data.root} holds no files in class folders; it must look like {data.root}/<class>/*.jpg{also}"
        )


def _check_classes(classes: Sequence[str], ledger: Sequence[LedgerLine], data: Data) -> None:
    rejected = [line for line in ledger if line.verdict == "rejected"]
    first = f"{len(rejected)} files were rejected, first: {rejected[0].path} ({rejected[0].reason})" if rejected else ""
    if not classes:
        raise SettingsError(f"data.root={data.root} holds no labelled image; {first}")
    if len(classes) == 1:
        also = f" ({first})" if first else ""
        raise SettingsError(
            f"data.root={data.root} holds one class only, {classes[0]}: a classifier needs two or more{also}; give "
            "the folder whose sub-folders are the classes"
        )


def _check_splits(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    for split in ("train", "valid"):
        present = {s.label for s in samples if s.split == split}
        if split == "train" and (absent := sorted(set(classes) - present)):
            raise SettingsError(f"no training image of class {absent[0]}: add some to its folder under train/")
        if not present:
            raise SettingsError(f"no image is left for {split}: add images, or raise data.split.{split}")
