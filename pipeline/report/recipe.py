"""The report of a run: the recipe's steps in order, each with its picture and its figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.manifest import read_json
from pipeline.report.html import Picture, Report, Section, Table, Tile


def build_report(
    *, metrics: Mapping[str, Any], classes: tuple[str, ...], folders: Mapping[str, Path], out: Path
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
            *_result_sections(metrics, out, split),
        ],
    )


def _tiles(scores: Mapping[str, Any], split: str) -> list[Tile]:
    def span(s: Mapping[str, Any]) -> str:
        return f"95 % interval {s['accuracy_low']:.1%} to {s['accuracy_high']:.1%}"

    return [
        Tile(f"{split} accuracy, TTA", f"{scores['tta']['accuracy']:.2%}", span(scores["tta"])),
        Tile(f"{split} accuracy, plain", f"{scores['plain']['accuracy']:.2%}", span(scores["plain"])),
        Tile(
            "gain by TTA", f"{100 * scores['tta_gain']:+.2f} pp", f"exact paired p = {scores['tta_gain_p_value']:.3g}"
        ),
        Tile("log loss, TTA", f"{scores['tta']['log_loss']:.4f}", f"plain {scores['plain']['log_loss']:.4f}"),
    ]


def _data_sections(folders: Mapping[str, Path]) -> list[Section]:
    ingest, augment = folders["ingest"], folders["augment_config"]
    counts = read_json(ingest / "metrics.json")
    return [
        Section(
            heading="The images",
            paragraphs=[
                f"{counts['found']} files were found, {counts['accepted']} are used; {counts['converted']} were "
                f"converted and {counts['rejected']} rejected (ledger.jsonl says which and why)."
            ],
            pictures=[
                Picture(ingest / "samples.png", "Training images of each class", "contact sheet of training images"),
                Picture(ingest / "class_counts.png", "Images by class and split", "bars of image counts"),
            ],
        ),
        Section(
            heading="Enable augmentation, precompute activations",
            step=1,
            paragraphs=["Every training image is changed at random, anew in each epoch. First in each row: unchanged."],
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
    rows = [
        [g["name"], f"{g['modules'][0]} to {g['modules'][-1]}", g["num_parameters"], f"{g['lr_factor']:.3g}"]
        for g in plan["groups"]
    ]
    sentences = [verdict["overfitting"]["sentence"], verdict["similarity"]["sentence"]]
    return [
        Section(
            heading="Unfreeze, and grade the rates",
            step="5-6",
            paragraphs=[f"Batch norm: {plan['batch_norm']}."],
            table=Table(["layer group", "modules", "parameters", "rate, as multiple of the head's"], rows),
        ),
        _lr_section(folders["lr_find_full"], 7, "Find the learning rate again, for all layers"),
        _training_section(folders["full_train"], 8, "Train everything until over-fitting", sentences),
    ]


def _result_sections(metrics: Mapping[str, Any], out: Path, split: str) -> list[Section]:
    rows = []
    for name in [s for s in ("valid", "test") if s in metrics]:
        for how in ("plain", "tta"):
            scores = metrics[name][how]
            columns = ("accuracy", "accuracy_low", "accuracy_high", "log_loss", "macro_f1", "calibration_error")
            rows.append([name, how, *(float(scores[c]) for c in columns)])
    header = ["split", "mode", "accuracy", "low", "high", "log loss", "macro F1", "calibration error"]
    pictures = [
        Picture(out / "confusion.png", f"Confusion matrix on {split}, TTA", "confusion matrix"),
        Picture(out / "calibration.png", "How sure, and how often right", "reliability diagram"),
        Picture(out / "mistakes.png", "The most confident mistakes", "misclassified images"),
    ]
    return [
        Section(
            heading="Test-time augmentation and the scores",
            step="TTA",
            paragraphs=["Test images were seen once, here; every choice was made on validation images."],
            table=Table(header, rows),
            pictures=pictures,
        )
    ]


def _lr_section(folder: Path, step: int, heading: str) -> Section:
    found = read_json(folder / "lr.json")
    text = (
        f"Chosen: {found['lr']:.3g}, the highest rate at which the loss "
        + ("still clearly improves" if found["improved"] else "has not clearly risen (it fell clearly at none)")
        if found["rule"] == "recipe"
        else f"Chosen: {found['lr']:.3g}, by the rule `{found['rule']}`"
    )
    text += f"; from the mean of {len(found['repeats'])} sweeps that differ by a factor of {found['spread']:.2f}."
    picture = Picture(folder / "lr_find.png", "Loss over the learning rate", "learning-rate sweep with the chosen rate")
    return Section(heading=heading, step=step, paragraphs=[text], pictures=[picture])


def _training_section(folder: Path, step: int, heading: str, sentences: list[str] | None = None) -> Section:
    metrics = read_json(folder / "metrics.json")
    kept = f"Cycle {metrics['kept_cycle']}" if metrics["kept_cycle"] else "The state before training"
    text = (
        f"{metrics['epochs']} epochs at a rate of up to {metrics['lr']:.3g}, batches of {metrics['batch_size']}. "
        f"{kept} is kept: validation loss {metrics['valid_loss']:.4f}, accuracy "
        f"{metrics['valid_accuracy']:.2%}."
    )
    pictures = [
        Picture(folder / "learning_curves.png", "Losses and accuracy", "learning curves with cycle boundaries"),
        Picture(folder / "schedule.png", "The learning rates", "learning-rate schedule"),
    ]
    return Section(heading=heading, step=step, paragraphs=[text, *(sentences or [])], pictures=pictures)
