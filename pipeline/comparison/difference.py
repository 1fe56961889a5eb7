"""Why do two runs differ? Their settings, images, code and rates, their scores, and the images whose answer changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.comparison.paired import Answer, Answers, Change, answers_of, compare_answers, valid_answers
from pipeline.comparison.runs import Run
from pipeline.comparison.table import differing_settings
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.files import read_json

NOT_SET = "(not set)"


@dataclass(frozen=True)
class DataChange:
    """How the images of the second run differ from those of the first: paths, in the order of the second's list."""

    num_images: tuple[int, int]
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    relabelled: dict[str, tuple[str, str]] = field(default_factory=dict)
    moved: dict[str, tuple[str, str]] = field(default_factory=dict)
    """To another split."""
    edited: list[str] = field(default_factory=list)
    """The same path with other pixels."""

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.relabelled or self.moved or self.edited)


@dataclass(frozen=True)
class Changed:
    """An image whose answer is not the same."""

    path: str
    first: Answer
    second: Answer

    @property
    def kind(self) -> str:
        """`better`, `worse` or `other`: wrong in both, in another way."""
        return "better" if self.second.is_correct else "worse" if self.first.is_correct else "other"


@dataclass(frozen=True)
class Difference:
    """All that differs between two runs; None for what one of them does not say."""

    first: Run
    second: Run
    settings: dict[str, tuple[Any, Any]]
    data: DataChange | None
    code: list[str] | None
    """Files whose meaning differs."""
    rates: dict[str, tuple[float | None, float | None]]
    scores: dict[str, Change]
    """By split: plain valid images through the kept model; test images in the mode that each run chose."""
    answers: list[Changed]
    """Of test images, or of valid where those are not known: worse ones first, then better ones."""
    split: str
    """What `answers` are of."""


def difference(first: Run, second: Run) -> Difference:
    """Compare two runs."""
    sides = {"valid": (valid_answers(first), valid_answers(second))}
    sides["test"] = (answers_of(first, "test"), answers_of(second, "test"))
    found = {split: compare_answers(a, b) for split, (a, b) in sides.items() if _comparable(first, second)}
    scores = {split: change for split, change in found.items() if change is not None}
    split = "test" if "test" in scores else "valid"
    return Difference(
        first=first,
        second=second,
        settings=_settings(first.settings, second.settings),
        data=_data(first, second),
        code=_code(first, second),
        rates=_rates(first, second),
        scores=scores,
        answers=changed_answers(*sides[split]) if scores else [],
        split=split,
    )


def changed_answers(first: Answers, second: Answers) -> list[Changed]:
    """List the images whose answer is not the same, worse ones first, each kind by how much the loss has changed."""
    both = [Changed(path, first[path], answer) for path, answer in second.items() if path in first]
    changed = [c for c in both if c.first.predicted != c.second.predicted]
    order = ("worse", "better", "other")
    return sorted(changed, key=lambda c: (order.index(c.kind), -abs(c.second.loss - c.first.loss), c.path))


def _comparable(first: Run, second: Run) -> bool:
    return first.images == second.images or None not in (first.ingest, second.ingest)


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = differing_settings([dict(first), dict(second)])
    return {key: (first.get(key, NOT_SET), second.get(key, NOT_SET)) for key in keys}


def _data(first: Run, second: Run) -> DataChange | None:
    if first.ingest is None or second.ingest is None:
        return None
    a, b = read_manifest(first.ingest), read_manifest(second.ingest)
    return compare_images(a, b)


def compare_images(first: Manifest, second: Manifest) -> DataChange:
    """Compare two lists of images by path."""
    change = DataChange(num_images=(len(first.samples), len(second.samples)))
    rows = {path: row for row, path in enumerate(first.samples.paths)}
    for b in second.samples:
        row = rows.pop(b.path, None)
        if row is None:
            change.added.append(b.path)
            continue
        a = first.samples[row]
        if a.label != b.label:
            change.relabelled[b.path] = (a.label, b.label)
        if a.split != b.split:
            change.moved[b.path] = (a.split, b.split)
        if a.sha256 != b.sha256:
            change.edited.append(b.path)
    change.removed.extend(rows)
    return change


def _code(first: Run, second: Run) -> list[str] | None:
    """Files of the code whose meaning differs; jobs by hand do not record theirs."""
    files = [_code_of(run.folder) for run in (first, second)]
    if None in files:
        return None
    a, b = files
    assert a is not None
    assert b is not None
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _code_of(folder: Path) -> dict[str, str] | None:
    for place in (folder, folder / "artifacts"):
        records = sorted((place / "config" / "code").glob("*.json"))
        if records:
            return {name: digest for record in records for name, digest in read_json(record)["files"].items()}
    return None


def _rates(first: Run, second: Run) -> dict[str, tuple[float | None, float | None]]:
    rates = {}
    for stage in ("lr_find_head", "lr_find_full", "head_train", "head_train_augmented", "full_train"):
        file = "lr.json" if stage.startswith("lr_find") else "metrics.json"
        pair = tuple((run.json(stage, file) or {}).get("lr") for run in (first, second))
        if any(rate is not None for rate in pair):
            rates[stage] = (pair[0], pair[1])
    return rates
