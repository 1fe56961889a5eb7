"""What a report says first: what the model tells apart, how well, of which run, and a verdict."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import read_json
from pipeline.report.advice import advise
from pipeline.report.facts import Before, Facts, duration
from pipeline.report.html import Tile
from pipeline.report.scores import TRAINING, Score, percent, read_score, span
from pipeline.report.sentences import capitalised, overfitting, points

NAMED = 6
"""Classes that are named in the title."""

Folders = Mapping[str, Path]


def title(folders: Folders) -> str:
    """Say what the model tells apart."""
    if "ingest" not in folders:
        return "Training report"
    classes = read_json(folders["ingest"] / "classes.json")
    if len(classes) > NAMED:
        return f"Tells apart {len(classes)} classes: {', '.join(classes[: NAMED - 1])}, ..."
    return f"Tells apart {listed(classes)}"


def figure(folders: Folders) -> str:
    """The share of unseen images that are classified correctly."""
    score = read_score(folders)
    return "" if score is None else percent(score.accuracy)


def headline(folders: Folders) -> str:
    """Say what the figure is of, and how far to trust it."""
    score = read_score(folders)
    if score is not None:
        return f"{_meaning(score)} {_other_mode(folders, score)}"
    for stage in TRAINING:
        if stage in folders:
            accuracy = read_json(folders[stage] / "metrics.json")["valid_accuracy"]
            return (
                f"After {stage}, {percent(accuracy)} of the validation images are classified correctly; not tested yet."
            )
    return "Nothing is trained yet."


def _meaning(score: Score) -> str:
    interval = f"(95 % interval {span(score)} %)"
    if score.split == "test":
        return f"of {score.num_images} unseen test images are classified correctly {interval}."
    return (
        f"of {score.num_images} validation images are classified correctly {interval}. Choices were made on them, and "
        "there are no test images, so this is optimistic."
    )


def _other_mode(folders: Folders, score: Score) -> str:
    """Say how the images were looked at, and what the other way would have given."""
    scores = read_json(folders["tta_evaluate"] / "metrics.json")[score.split]
    if not scores["num_views"]:
        return "Plain images: test-time augmentation has no further view of them."
    plain, tta = percent(scores["plain"]["accuracy"]), percent(scores["tta"]["accuracy"])
    if score.mode == "tta":
        return f"With test-time augmentation, which did better on valid; plain images {plain}."
    return f"Plain images, which did as well or better on valid; with test-time augmentation {tta}."


def tiles(folders: Folders, facts: Facts) -> Iterator[Tile]:
    """Yield the data, the model, and the circumstances of the run, as far as they are known."""
    settings = settings_of(folders)
    if "ingest" in folders:
        counts = read_json(folders["ingest"] / "metrics.json")["images"]
        splits = ", ".join(f"{count} {split}" for split, count in counts.items())
        yield Tile("Data", data_name(settings), f"{sum(counts.values())} images: {splits}")
    if "precompute" in folders:
        weights = Path(str(settings["model.weights"])).stem
        size = f", {settings['data.image_size']} px" if "data.image_size" in settings else ""
        yield Tile("Model", str(settings["model.arch"]), f"weights {weights}{size}")
    if facts.date:
        took = f"{duration(sum(facts.seconds.values()))} of work" if facts.seconds else ""
        yield Tile("Made", facts.date, took)
    if facts.commit:
        yield Tile("Code", facts.commit, "with changes that are not committed" if facts.is_dirty else "committed")
    if read_score(folders) is not None and facts.date:
        yield Tile("Against the run before", *_against(facts.before))


def _against(before: Before | None) -> tuple[str, str]:
    if before is None:
        return "no earlier run", "the next one is compared with this"
    then = f"{percent(before.accuracy)} on {before.date}"
    if before.change is None:
        return "–", f"{then}, on other images: not comparable"
    tested = "" if before.p is None else f"; paired test p = {before.p:.2g}"
    clear = "" if before.p is None or before.p < 0.05 else ", no clear difference"
    return f"{points(before.change)} points", f"{then}{tested}{clear}"


def data_name(settings: Mapping[str, Any]) -> str:
    """Name the images by their folder or data set."""
    root = settings.get("data.root")
    return str(settings.get("data.dataset") or (Path(root).name if root else settings.get("data.name", "images")))


def settings_of(folders: Folders) -> dict[str, Any]:
    """The settings, flat, that all stages read."""
    settings: dict[str, Any] = {}
    for folder in folders.values():
        if (folder / "stage.json").exists():
            settings |= read_json(folder / "stage.json")["settings"]
    return settings


# The verdict


def verdict(folders: Folders) -> list[tuple[str, str]]:
    """Answer three questions, as far as the stages have run."""
    ran = [stage for stage in reversed(TRAINING) if stage in folders]
    if not ran:
        return []
    cycles = {stage: read_json(folders[stage] / "cycles.json") for stage in ran}
    answers = [("Did training help?", " ".join(_help(cycles)))]
    if "full_train" in cycles:
        answers.append(("Did it over-fit?", overfitting(cycles["full_train"], stage="full_train")))
    advice = advise(folders)
    next_step = advice[0] if advice else "Nothing stands out: more training images help most often."
    return [*answers, ("What next?", next_step)]


def _help(cycles: Mapping[str, Any]) -> Iterator[str]:
    last, found = list(cycles.items())[-1]
    yield f"{_NAMES[last]} {_gained(found)}."
    kept_before = [stage for stage, values in cycles.items() if values["kept"]["cycles"] == [0]]
    others = [stage for stage in kept_before if stage != last]
    if others:
        too = " too" if last in kept_before else ""
        yield f"{capitalised(listed(others))}{too} kept the model as it was before: no cycle was clearly better."
    first, end = next(iter(cycles.values()))["ends"][0], found["kept"]
    accuracies = f"from {percent(first['valid_accuracy'])} to {percent(end['valid_accuracy'])}"
    yield f"From the first head to the end, the accuracy on valid went {accuracies}."


_NAMES = {
    "full_train": "Training all layers",
    "head_train_augmented": "Training the head with augmentation",
    "head_train": "Training the head",
}


def _gained(cycles: Mapping[str, Any]) -> str:
    """Say what a training stage gained on valid over the state before it."""
    kept, before = cycles["kept"], cycles["ends"][0]
    if kept["cycles"] == [0]:
        return f"did not help: {_why_before(kept)}, so the model as it was before is kept"
    fall = before["valid_loss"] - kept["valid_loss"]
    change = f"the loss on valid went from {before['valid_loss']:.3f} to {kept['valid_loss']:.3f}"
    if "gain" not in cycles:  # folders that were made before it was measured
        return f"{'helped' if fall > 0 else 'did not help'}: {change}"
    gain = cycles["gain"]["loss"]
    interval = f"95 % interval of the fall {gain['low']:+.3f} to {gain['high']:+.3f}"
    if gain["low"] > 0:
        return f"helped: {change} ({interval})"
    if gain["high"] < 0:
        return f"did harm: {change} ({interval})"
    return f"made no clear difference: {change} ({interval}), which chance could explain"


def _why_before(kept: Mapping[str, Any]) -> str:
    """Say why the state before training was kept."""
    if (chance := kept.get("by_chance")) is None:
        return "no cycle was better on valid"
    return f"the gain of the best cycle on valid would come by luck alone in {chance:.0%} of cases"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last
