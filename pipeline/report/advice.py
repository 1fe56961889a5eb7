"""What to try next: a few sentences, read off the curves and tables of a run and off nothing else."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.cells import read_cells
from pipeline.files import read_json

AT_MOST = 3
"""Sentences: who is told everything tries nothing."""
FEW_IMAGES = 20
"""A class with fewer training images is small, whatever the data."""
AT_THE_EDGE = 0.1
"""A rate within this share of the sweep's decades from one of its ends is at its edge."""
CONFUSED_SHARE = 0.25
"""A pair of classes that makes up this share of all mistakes, and three of them, is worth looking at."""
STILL_FALLS = 0.02
"""The validation loss still falls if the last cycle lowered it by this share."""

Folders = Mapping[str, Path]


def advise(folders: Folders) -> list[str]:
    """Return what to try next, the most promising first; `folders` maps stages to theirs, and may lack some."""
    rules = (_more_cycles, _less_overfitting, _rate_at_the_edge, _confused_pair, _small_classes)
    sentences = (sentence for rule in rules for sentence in rule(folders))
    return [sentence for sentence, _ in zip(sentences, range(AT_MOST), strict=False)]


def _more_cycles(folders: Folders) -> Iterator[str]:
    if "full_train" not in folders:
        return
    cycles = read_json(folders["full_train"] / "cycles.json")
    *before, last = (end["valid_loss"] for end in cycles["ends"])
    if len(before) == cycles["num_cycles"] and last <= min(before) * (1 - STILL_FALLS):
        yield (
            f"The validation loss still fell in the last cycle (from {min(before):.4f} to {last:.4f}): raise "
            f"full_train.num_cycles above {cycles['num_cycles']}."
        )


def _less_overfitting(folders: Folders) -> Iterator[str]:
    if "full_train" not in folders:
        return
    cycles = read_json(folders["full_train"] / "cycles.json")
    if cycles["verdict"]["overfitting_since_cycle"] == 1:
        yield (
            "Training all layers over-fitted from its first cycle: try stronger augmentation (augment.rotate_deg, "
            "augment.crop_min, ...), a lower full_train.lr, or more training images."
        )


def _rate_at_the_edge(folders: Folders) -> Iterator[str]:
    for stage in ("lr_find_head", "lr_find_full"):
        if stage not in folders:
            continue
        choice = read_json(folders[stage] / "lr.json")
        if not choice.get("usable", True):
            yield f"{stage} could read no rate: set the lr of the stages after it yourself, and compare two values."
            continue
        low, high = map(math.log10, choice["swept"])
        place = (math.log10(choice["lr"]) - low) / (high - low)
        if place < AT_THE_EDGE and not choice.get("widened"):
            yield f"The rate of {stage} ({choice['lr']:.2g}) is at the lower edge of its sweep: lower {stage}.start_lr."
        elif place > 1 - AT_THE_EDGE:
            yield f"The rate of {stage} ({choice['lr']:.2g}) is at the upper edge of its sweep: raise {stage}.end_lr."


def _confused_pair(folders: Folders) -> Iterator[str]:
    if "tta_evaluate" not in folders:
        return
    (_, *classes), *rows = read_cells(folders["tta_evaluate"] / "confusion.csv")
    mistakes = {
        (row[0], predicted): int(count)
        for row in rows
        for predicted, count in zip(classes, row[1:], strict=True)
        if predicted != row[0]
    }
    (true, predicted), most = max(mistakes.items(), key=lambda item: item[1])
    total = sum(mistakes.values())
    if most >= 3 and most >= CONFUSED_SHARE * total:
        yield (
            f"{most} of {total} mistakes take {true!r} for {predicted!r}: look at these images in "
            "report/tta_evaluate/mistakes.png, check their labels, and add images of both."
        )


def _small_classes(folders: Folders) -> Iterator[str]:
    if "ingest" not in folders:
        return
    counts = read_json(folders["ingest"] / "class_counts.json")["train"]
    small = {name: count for name, count in counts.items() if count < FEW_IMAGES}
    if small:
        smallest = min(small, key=lambda name: small[name])
        number = "1 class has" if len(small) == 1 else f"{len(small)} classes have"
        yield (
            f"{number} fewer than {FEW_IMAGES} training images (the smallest, {smallest!r}, {small[smallest]}): more "
            "images there help most; until then compare data.balance=sampler."
        )
