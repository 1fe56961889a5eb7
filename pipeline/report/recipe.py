"""The report of a run: the recipe's steps in order, each with its picture and its figures."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.evaluation.prediction import TtaCard
from pipeline.files import read_json
from pipeline.report.html import Picture, Report, Section, Table, Tile


def build_report(
    *, metrics: Mapping[str, Any], classes: tuple[str, ...], folders: Mapping[str, Path], out: Path, tta_card: TtaCard
) -> Report:
    """Gather what all stages made; `folders` are theirs, `out` is that of tta_evaluate."""
    split = "test" if "test" in metrics else "valid"
    scores = metrics[split]
    verdict = read_json(folders["full_train"] / "verdict.json")
    headline = (
        f"With test-time augmentation {scores['tta']['accuracy']:.1%} of {scores['num_images']} {split} images are "
        f"classified rightly (95 % interval {scores['tta']['accuracy_low']:.1%} to "
        f"{scores['tta']['accuracy_high']:.1%}), into {len(classes)} classes."
    )
    return Report(
        title="Training report",
        headline=headline,
        tiles=_tiles(scores, split),
        sections=[
            *_data_sections(folders),
            *_head_sections(folders),
            *_full_sections(folders, verdict),
            _tta_section(metrics, tta_card),
            _result_section(out, split),
        ],
    )


def _tiles(scores: Mapping[str, Any], split: str) -> list[Tile]:
    def span(s: Mapping[str, Any]) -> str:
        return f"95 % interval {s['accuracy_low']:.1%} to {s['accuracy_high']:.1%}"

    gain = scores["tta_gain"]["accuracy"]
    return [
        Tile(f"{split} accuracy, TTA", f"{scores['tta']['accuracy']:.2%}", span(scores["tta"])),
        Tile(f"{split} accuracy, plain", f"{scores['plain']['accuracy']:.2%}", span(scores["plain"])),
        Tile(
            "gain by TTA",
            f"{_points(gain['mean'])} pp",
            f"{_points(gain['low'])} to {_points(gain['high'])} pp, exact p = {scores['tta_gain_p_value']:.2g}",
        ),
        Tile("log loss, TTA", f"{scores['tta']['log_loss']:.4f}", f"plain {scores['plain']['log_loss']:.4f}"),
    ]


def _data_sections(folders: Mapping[str, Path]) -> list[Section]:
    ingest, augment = folders["ingest"], folders["augment_config"]
    counts, precomputed = read_json(ingest / "metrics.json"), read_json(folders["precompute"] / "metrics.json")
    return [
        Section(
            heading="The images",
            paragraphs=[
                f"{counts['found']} files were found, {counts['used']} images are used; {counts['converted']} were "
                f"converted, {counts['flagged']} flagged and {counts['rejected']} rejected (ledger.jsonl says which "
                f"and why). {counts['copies']} are copies of others, {counts['near_copies']} nearly so."
            ],
            pictures=[
                Picture(ingest / "samples.png", "Training images of each class", "contact sheet of training images"),
                Picture(ingest / "class_counts.png", "Images by class and split", "bars of image counts"),
                *(
                    Picture(ingest / file, title, title.lower())
                    for file, title in (
                        ("troubles.png", "Rejected and flagged files"),
                        ("duplicates.png", "Images that are there twice"),
                    )
                    if (ingest / file).exists()
                ),
            ],
        ),
        Section(
            heading="Enable augmentation, precompute activations",
            step=1,
            paragraphs=[
                "Every training image is changed at random, anew in each epoch. First in each row: unchanged.",
                f"The frozen backbone makes {precomputed['num_features']} activations of each image. "
                f"The head begins with {precomputed['head_begins']}.",
            ],
            pictures=[Picture(augment / "augmentations.png", "Images and their random views", "augmented images")],
        ),
    ]


def _head_sections(folders: Mapping[str, Path]) -> list[Section]:
    return [
        _lr_section(folders["lr_find_head"], 2, "Find the learning rate of the head"),
        _training_section(folders["head_train"], 3, "Train the head on precomputed activations"),
        _training_section(folders["head_train_augmented"], 4, "Train the head with augmentation"),
    ]


def _full_sections(folders: Mapping[str, Path], verdict: Mapping[str, Any]) -> list[Section]:
    plan = read_json(folders["unfreeze"] / "plan.json")
    rows = [[g["name"], _span(g["modules"]), g["num_parameters"], f"{g['lr_factor']:.3g}"] for g in plan["groups"]]
    sentences = [s for name in ("overfitting", "snapshots", "similarity") if (s := verdict[name]["sentence"])]
    return [
        Section(
            heading="Unfreeze, and grade the rates",
            step="5-6",
            paragraphs=[f"Batch norm: {plan['batch_norm']}."],
            table=Table(["layer group", "modules", "parameters", "rate, as multiple of the head's"], rows),
        ),
        _lr_section(folders["lr_find_full"], 7, "Find the learning rate again, for all layers"),
        _with_reasons(
            _training_section(folders["full_train"], 8, "Train everything until over-fitting", sentences),
            folders["full_train"],
            verdict,
        ),
    ]


def _with_reasons(section: Section, folder: Path, verdict: Mapping[str, Any]) -> Section:
    """With how far each layer group moved, and how sharp the loss is where the cycles ended."""
    moved = [[g["name"], f"{g['weights']:.2%}", f"{g['features_cka']:.4f}"] for g in verdict["similarity"]["groups"]]
    sharpness = Picture(folder / "sharpness.png", "Why it over-fits, or not: gap and sharpness", "sharpness per cycle")
    return replace(
        section,
        pictures=[*section.pictures, sharpness],
        table=Table(["layer group", "weights moved in the first cycle", "features alike (linear CKA)"], moved),
    )


def _span(modules: list[str]) -> str:
    return modules[0] if len(modules) == 1 else f"{modules[0]} to {modules[-1]}"


def _tta_section(metrics: Mapping[str, Any], tta_card: TtaCard) -> Section:
    columns = ("accuracy", "accuracy_low", "accuracy_high", "log_loss", "macro_f1", "calibration_error")
    splits = [s for s in ("valid", "test") if s in metrics]
    rows = [
        [split, name, *(f"{metrics[split][how][c]:.4f}" for c in columns)]
        for split in splits
        for how, name in (("plain", "plain"), ("tta", "TTA"))
    ]
    header = ["split", "mode", "accuracy", "low", "high", "log loss", "macro F1", "calibration error"]
    return Section(
        heading="Test-time augmentation and the scores",
        step="TTA",
        paragraphs=[
            _tta_text(metrics, tta_card),
            *(_gain_text(s, metrics[s]) for s in splits),
            "Test images were seen once, here; every choice was made on validation images.",
        ],
        table=Table(header, rows),
    )


def _tta_text(metrics: Mapping[str, Any], tta_card: TtaCard) -> str:
    num_views = metrics["valid"]["num_views"]
    about = "" if float(num_views).is_integer() else " on average"
    text = f"Mode {tta_card.tta.mode}: each image is looked at plain and from {num_views:.3g} other views{about}"
    if tta_card.plain_weight is None:
        return f"{text}, all with the same weight."
    return (
        f"{text}; the plain one weighs {tta_card.plain_weight:.0%}, which gave the least log loss on valid (so that "
        "valid's own TTA scores flatter)."
    )


def _gain_text(split: str, scores: Mapping[str, Any]) -> str:
    accuracy, loss = scores["tta_gain"]["accuracy"], scores["tta_gain"]["log_loss"]
    return (
        f"On {split}, TTA moves the accuracy by {_points(accuracy['mean'])} points (95 % interval "
        f"{_points(accuracy['low'])} to {_points(accuracy['high'])}; McNemar's exact p = "
        f"{scores['tta_gain_p_value']:.2g}) and the log loss by {-loss['mean']:+.4f} "
        f"({-loss['high']:+.4f} to {-loss['low']:+.4f})."
    )


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def _result_section(out: Path, split: str) -> Section:
    pictures = [
        Picture(out / "confusion.png", f"Confusion matrix on {split}, TTA", "confusion matrix"),
        Picture(out / "calibration.png", "How sure, and how often right", "reliability diagram"),
        Picture(out / "mistakes.png", "The most confident mistakes", "misclassified images"),
    ]
    return Section(heading="What is right and what is not", pictures=pictures)


def _lr_section(folder: Path, step: int, heading: str) -> Section:
    found = read_json(folder / "lr.json")
    if found["rule"] != "recipe":
        why = f"by the rule `{found['rule']}`"
    elif found["improved"]:
        why = "the highest rate at which the loss still clearly improves"
    else:
        why = "a third of the highest rate at which the loss has not clearly risen (it fell clearly at none)"
    sweeps = f"{len(found['repeats'])} sweeps that differ by a factor of {found['spread']:.2f}"
    text = f"Chosen: {found['lr']:.3g}, {why}; from the mean of {sweeps}."
    picture = Picture(folder / "lr_find.png", "Loss over the learning rate", "learning-rate sweep with the chosen rate")
    return Section(heading=heading, step=step, paragraphs=[text], pictures=[picture])


def _training_section(folder: Path, step: int, heading: str, sentences: list[str] | None = None) -> Section:
    metrics = read_json(folder / "metrics.json")
    kept = read_json(folder / "cycles.json")["kept"]["what"]
    text = (
        f"{metrics['epochs']} epochs at a rate of up to {metrics['lr']:.3g}, batches of {metrics['batch_size']}. "
        f"{kept[0].upper()}{kept[1:]} is kept: validation loss {metrics['valid_loss']:.4f}, accuracy "
        f"{metrics['valid_accuracy']:.2%}."
    )
    pictures = [
        Picture(folder / "learning_curves.png", "Losses and accuracy", "learning curves with cycle boundaries"),
        Picture(folder / "schedule.png", "The learning rates", "learning-rate schedule"),
    ]
    return Section(heading=heading, step=step, paragraphs=[text, *(sentences or [])], pictures=pictures)
