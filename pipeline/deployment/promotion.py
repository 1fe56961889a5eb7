"""Whether a new model takes the champion's place: registered, compared image by image, and promoted if it is better."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.cells import read_records
from pipeline.evaluation.metrics import mcnemar_exact
from pipeline.settings import Publish
from pipeline.tracking.models import CHAMPION, Registry, Version

SIGNIFICANT = 0.05
"""The new model must be right on more images, and the p-value below this."""
_PREDICTIONS = "evaluation/predictions.csv"


@dataclass(frozen=True)
class Comparison:
    """A new model against the champion, on the same test images."""

    better: bool
    text: str


def promote(registry: Registry, run_id: str, publish: Publish, *, description: str) -> str | None:
    """Register the model of a run, move the alias if `publish.promote` says so; returns what was done, to be shown.

    None if the run has no model. Raises StoreUnavailableError.
    """
    assert publish.register is not None
    version = registry.register(run_id, publish.register, description=description)
    if version is None:
        return None
    champion = registry.champion(publish.register)
    if champion is not None and champion.number == version.number:
        return f"{version} is the {CHAMPION}: models:/{version.name}@{CHAMPION}"
    moves, why = _decide(registry, version, champion, publish.promote)
    if moves:
        registry.make_champion(version)
    text = f"{version} {'becomes' if moves else 'does not become'} the {CHAMPION}: {why}"
    registry.note(version, text)
    return text


def _decide(registry: Registry, version: Version, champion: Version | None, how: str) -> tuple[bool, str]:
    if how == "never":
        return False, "publish.promote=never"
    if champion is None:
        return True, "there was none"
    if how == "always":
        return True, f"publish.promote=always (before: version {champion.number})"
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for each in (version, champion):
            (folder := Path(scratch) / each.number).mkdir()
            file = registry.artifact(each.run_id, _PREDICTIONS, folder)
            if file is None:
                return False, f"the run of {each} has no {_PREDICTIONS}; publish.promote=always moves it all the same"
            found.append(read_answers(file))
    comparison = compare(*found, champion=f"version {champion.number}")
    return comparison.better, comparison.text


def compare(new: "Answers", old: "Answers", *, champion: str) -> Comparison:
    """Compare the plain answers of both on the same images, by McNemar's exact test."""
    if new.keys() != old.keys() or any(new[image].label != old[image].label for image in new):
        return Comparison(
            False,
            f"its test images or their labels are not those of {champion} ({len(new.keys() & old.keys())} images in "
            f"common of {len(new)} and {len(old)}), so the two cannot be compared; publish.promote=always moves it all "
            "the same",
        )
    images = sorted(new)
    hits, hits_before = (np.array([answers[image].correct for image in images]) for answers in (new, old))
    gained, lost = int((hits & ~hits_before).sum()), int((hits_before & ~hits).sum())
    p = mcnemar_exact(hits, hits_before)
    better = gained > lost and p < SIGNIFICANT
    verdict = "better" if better else "not clearly better"
    return Comparison(
        better,
        f"{verdict} than {champion} on the same {len(images)} test images: {hits.mean():.1%} correct instead of "
        f"{hits_before.mean():.1%} (gained {gained}, lost {lost}, p = {p:.2g})",
    )


@dataclass(frozen=True)
class _Answer:
    label: str
    correct: bool


Answers = Mapping[tuple[str, int], _Answer]
"""By the digest of an image's pixels, and how many images with these pixels come before it."""


def read_answers(file: Path) -> Answers:
    """Read the labelled rows of `predictions.csv`."""
    answers: dict[tuple[str, int], _Answer] = {}
    for row in read_records(file):
        copy = 0
        while (key := (row.get("sha256") or row["path"], copy)) in answers:
            copy += 1
        if row["label"]:
            answers[key] = _Answer(row["label"], row["plain"] == row["label"])
    return answers
