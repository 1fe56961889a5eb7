"""What the console says about a stage, made from what the stage left in its folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.files import read_json
from pipeline.journal import read_points
from pipeline.report import sentences
from pipeline.report.advice import advise
from pipeline.report.ledger import first_lines

LISTED_FILES = 5
"""Rejected and flagged files on the console, of each kind; the others are in `ledger.jsonl`."""

Timings = Mapping[str, float]


def summary(stage: str, folders: Mapping[str, Path], timings: Timings) -> list[str]:
    """Return the console lines at the end of a stage; none for a stage that has nothing to say.

    `folders` must hold the stage's own folder. `timings` are the stage's own; what is not in it is left out.
    """
    if stage in RUN_SUMMARIES:
        return RUN_SUMMARIES[stage](folders)
    return SUMMARIES[stage](folders[stage], timings) if stage in SUMMARIES else []


def _ingest(folder: Path, _: Timings) -> list[str]:
    metrics = read_json(folder / "metrics.json")
    splits = ", ".join(f"{count} {split}" for split, count in metrics["images"].items())
    lines = [
        f"{metrics['used']} images in {metrics['classes']} classes ({splits}); {metrics['converted']} converted, "
        f"{metrics['flagged']} flagged, {metrics['rejected']} rejected"
    ]
    fraction = read_json(folder / "stage.json")["settings"].get("data.train_fraction", 1.0)
    if fraction < 1:
        lines.append(f"data.train_fraction={fraction:g}: the other training images are left out")
    if metrics["unlabelled"]:
        lines.append(f"{metrics['unlabelled']} images without a label, for predictions only")
    if metrics.get("dropped"):
        rule = read_json(folder / "stage.json")["settings"]["data.drop"]
        lines.append(f"{sentences.counted(metrics['dropped'], 'image')} left out: listed in data.drop={rule}")
    if metrics["copies"] or metrics["near_copies"]:
        rule = read_json(folder / "stage.json")["settings"]["data.duplicates"]
        lines.append(
            f"{metrics['copies']} copies and {metrics['near_copies']} near copies, {metrics['copies_across_splits']} "
            f"across splits and {metrics['copies_across_labels']} across labels (data.duplicates={rule})"
        )
    lines += read_json(folder / "notes.json") if (folder / "notes.json").exists() else []
    for verdict, troubles in first_lines(folder, LISTED_FILES).items():
        lines += [f"{verdict} {x['path']!r}: {x['reason']}" for x in troubles]
    return lines


def _augment_config(folder: Path, _: Timings) -> list[str]:
    num = read_json(folder / "metrics.json")["num_transforms"]
    return [f"{num} random transforms" if num else "no augmentation: training sees plain images"]


def _precompute(folder: Path, _: Timings) -> list[str]:
    metrics, settings = read_json(folder / "metrics.json"), read_json(folder / "stage.json")["settings"]
    images = " and ".join(f"{count} {split} images" for split, count in metrics["images"].items())
    views = f", and for {metrics['views']} augmented views of each train image" if metrics["views"] else ""
    return [
        f"{settings['model.arch']} ({settings['model.weights']}): {metrics['num_features']} features for each of "
        f"{images}{views}",
        f"the head begins with {metrics['head_begins']}{_first_accuracy(folder / 'journal.jsonl')}",
        *_licence(folder),
    ]


def _first_accuracy(journal: Path) -> str:
    """Say how good a head is that nothing was trained of, where the stage has measured it."""
    values = next(iter(read_points(journal).values()), {}) if journal.exists() else {}
    return f": accuracy {values['valid_accuracy']:.4f} on valid" if "valid_accuracy" in values else ""


def _cross_validate(folder: Path, _: Timings) -> list[str]:
    metrics = read_json(folder / "metrics.json")
    return [
        f"{metrics['num_folds']}-fold on activations: accuracy {metrics['accuracy']:.4f} (95 % "
        f"{metrics['accuracy_low']:.3f} to {metrics['accuracy_high']:.3f}), log loss {metrics['log_loss']:.4f} "
        f"({metrics['log_loss_low']:.4f} to {metrics['log_loss_high']:.4f})",
        *_expected_on_test(metrics),
        *_cross_validate_remarks(folder),
    ]


def _expected_on_test(metrics: sentences.Json) -> list[str]:
    if "num_test" not in metrics:
        return []
    low, high = metrics["expected_on_test_low"], metrics["expected_on_test_high"]
    return [f"on {metrics['num_test']} test images, expect an accuracy of {low:.3f} to {high:.3f} (95 %)"]


def _lr_find(folder: Path, _: Timings) -> list[str]:
    choice = read_json(folder / "lr.json")
    if not choice.get("usable", True):
        return sentences.lr_notes(choice)
    return [
        f"lr {choice['lr']:.3g} by rule {choice['rule']}, {sentences.lr_sweeps(choice)}",
        *sentences.lr_notes(choice),
    ]


def _training(folder: Path, _: Timings) -> list[str]:
    return [sentences.kept_scores(read_json(folder / "cycles.json"))]


def _unfreeze(folder: Path, _: Timings) -> list[str]:
    plan = read_json(folder / "plan.json")
    groups, lrs = plan["groups"], plan.get("lrs")
    rates = [f"{g['lr_factor']:.3g} of the head's rate" for g in groups] if lrs is None else [f"{lr:.3g}" for lr in lrs]
    optimizer = sentences.optimizer(plan)
    return [
        *(
            f"{group['name']:<10} {group['num_parameters']:>11,} parameters at {rate}"
            for group, rate in zip(groups, rates, strict=True)
        ),
        *([] if optimizer is None else [optimizer]),
        *sentences.rate_warnings(plan),
    ]


def _full_train(folder: Path, timings: Timings) -> list[str]:
    return [*_training(folder, timings), *_full_train_remarks(folder)]


def _tta_evaluate(folder: Path, timings: Timings) -> list[str]:
    metrics = read_json(folder / "metrics.json")
    splits = {split: metrics[split] for split in ("valid", "test") if split in metrics}
    lines = []
    if not any(scores["num_views"] for scores in splits.values()):
        lines.append("no image has a view that shows more than the plain one, so TTA equals plain")
    for split, scores in splits.items():
        plain, tta, gain = scores["plain"], scores["tta"], scores["tta_gain"]["accuracy"]
        lines.append(
            f"{split}: accuracy {plain['accuracy']:.4f} plain, {tta['accuracy']:.4f} with TTA "
            f"(95 % {tta['accuracy_low']:.3f} to {tta['accuracy_high']:.3f}); gain {sentences.points(gain['mean'])} "
            f"points ({sentences.points(gain['low'])} to {sentences.points(gain['high'])}, "
            f"p = {scores['tta_gain_p_value']:.2g}); {scores['num_views']:.3g} views{_cost(split, timings)}"
        )
    found = metrics.get("calibration", {}).get("plain", {})  # missing in folders made before there was a calibration
    return [*lines, *(f"test, calibrated: {said}" for said in sentences.calibration(found))]


def _cost(split: str, timings: Timings) -> str:
    plain, tta = (timings.get(f"{split}/{name}_ms_per_image") for name in ("plain", "tta"))
    return "" if plain is None or tta is None else f"; {plain:.3g} and {tta:.3g} ms an image"


def _licence(folder: Path) -> list[str]:
    """The licence of the weights, where it is known: what is trained from them is bound by it."""
    card = read_json(folder / "model.json")
    return [f"weights from {card['weights']}, licence: {card['licence']}"] if card.get("licence") else []


def _cross_validate_remarks(folder: Path) -> list[str]:
    metrics = read_json(folder / "metrics.json")
    return [sentences.suspects(metrics), *sentences.unknown_classes(metrics)]


def _full_train_remarks(folder: Path) -> list[str]:
    cycles, verdict = read_json(folder / "cycles.json"), read_json(folder / "verdict.json")
    return [*sentences.full_train_verdict(cycles, verdict), sentences.movement(verdict["similarity"]["groups"])]


def _report(folders: Mapping[str, Path]) -> list[str]:
    return [f"what to try next: {sentence}" for sentence in advise(folders)]


SUMMARIES: dict[str, Callable[[Path, Timings], list[str]]] = {
    "ingest": _ingest,
    "augment_config": _augment_config,
    "precompute": _precompute,
    "cross_validate": _cross_validate,
    "lr_find_head": _lr_find,
    "head_train": _training,
    "head_train_augmented": _training,
    "unfreeze": _unfreeze,
    "lr_find_full": _lr_find,
    "full_train": _full_train,
    "tta_evaluate": _tta_evaluate,
}

RUN_SUMMARIES: dict[str, Callable[[Mapping[str, Path]], list[str]]] = {"report": _report}
"""Stages that sum up the whole run: they get the folders of all stages."""
