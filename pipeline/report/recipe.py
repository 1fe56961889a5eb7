"""The report of a run: the recipe's steps in order, each with its pictures and figures.

It is made from the folders that the stages left, and from the pictures that were drawn of them. Stages that have not
run are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import read_json
from pipeline.report import sentences
from pipeline.report.advice import advise
from pipeline.report.html import Picture, Report, Section, Table, Tile

_TRAINING = ("full_train", "head_train_augmented", "head_train")
"""Training stages, the last one first."""


def build_report(folders: Mapping[str, Path], drawn: Path) -> Report:
    """Gather what the stages left.

    `folders` maps stage names to their published folders; those that are missing are left out of the report. The
    pictures of a stage lie in `drawn/<stage>/`; those that are missing are left out too.
    """
    found = {stage: folder for stage, folder in folders.items() if folder.is_dir()}
    return Report(
        title="Training report",
        headline=_headline(found),
        tiles=_tiles(found),
        sections=[
            *_data_sections(found, drawn),
            *_training_sections(found, drawn),
            *_score_sections(found, drawn),
            *_next_sections(found),
        ],
    )


def _next_sections(folders: Mapping[str, Path]) -> list[Section]:
    advice = advise(folders)
    return [Section(heading="What to try next", paragraphs=advice)] if advice else []


def _headline(folders: Mapping[str, Path]) -> str:
    if "tta_evaluate" in folders:
        split, scores = _shown_scores(folders)
        classes = f", into {len(read_json(folders['ingest'] / 'classes.json'))} classes" if "ingest" in folders else ""
        return (
            f"With test-time augmentation {scores['tta']['accuracy']:.1%} of {scores['num_images']} {split} images are "
            f"classified correctly (95 % interval {scores['tta']['accuracy_low']:.1%} to "
            f"{scores['tta']['accuracy_high']:.1%}){classes}."
        )
    for stage in _TRAINING:
        if stage in folders:
            accuracy = read_json(folders[stage] / "metrics.json")["valid_accuracy"]
            return f"After {stage}, {accuracy:.1%} of the validation images are classified correctly; not tested yet."
    return "Nothing is trained yet."


def _shown_scores(folders: Mapping[str, Path]) -> tuple[str, Mapping[str, Any]]:
    """Return the split that counts, and its scores: test, or valid where there are no test images."""
    metrics = read_json(folders["tta_evaluate"] / "metrics.json")
    split = "test" if "test" in metrics else "valid"
    return split, metrics[split]


def _tiles(folders: Mapping[str, Path]) -> list[Tile]:
    if "tta_evaluate" not in folders:
        return []
    split, scores = _shown_scores(folders)
    gain = scores["tta_gain"]["accuracy"]

    def span(s: Mapping[str, Any]) -> str:
        return f"95 % interval {s['accuracy_low']:.1%} to {s['accuracy_high']:.1%}"

    low, high = sentences.points(gain["low"]), sentences.points(gain["high"])
    return [
        Tile(f"{split} accuracy, TTA", f"{scores['tta']['accuracy']:.2%}", span(scores["tta"])),
        Tile(f"{split} accuracy, plain", f"{scores['plain']['accuracy']:.2%}", span(scores["plain"])),
        Tile(
            "gain by TTA",
            f"{sentences.points(gain['mean'])} pp",
            f"{low} to {high} pp, exact p = {scores['tta_gain_p_value']:.2g}",
        ),
        Tile("log loss, TTA", f"{scores['tta']['log_loss']:.4f}", f"plain {scores['plain']['log_loss']:.4f}"),
    ]


def _pictures(drawn: Path, stage: str, *captions: tuple[str, str, str]) -> list[Picture]:
    """Return the pictures of a stage that exist, from (file name, caption, description for those who cannot see)."""
    pictures = [Picture(drawn / stage / name, caption, alt) for name, caption, alt in captions]
    return [picture for picture in pictures if picture.path.exists()]


# The data


def _data_sections(folders: Mapping[str, Path], drawn: Path) -> Iterator[Section]:
    if "ingest" in folders:
        yield _images_section(folders["ingest"], drawn)
    if "augment_config" in folders or "precompute" in folders:
        yield _augmentation_section(folders, drawn)
    if "cross_validate" in folders:
        yield _cross_validation_section(folders["cross_validate"], drawn)


def _images_section(ingest: Path, drawn: Path) -> Section:
    counts = read_json(ingest / "metrics.json")
    return Section(
        heading="The images",
        paragraphs=[
            f"{counts['found']} files were found, {counts['used']} images are used; {counts['converted']} were "
            f"converted, {counts['flagged']} flagged and {counts['rejected']} rejected (ledger.jsonl says which "
            f"and why). {counts['copies']} are exact copies of other images, {counts['near_copies']} are near copies."
        ],
        pictures=_pictures(
            drawn,
            "ingest",
            ("samples.png", "Training images of each class", "contact sheet of training images"),
            ("class_counts.png", "Images by class and split", "bars of image counts"),
            ("troubles.png", "Rejected and flagged files", "rejected and flagged files"),
            ("duplicates.png", "Duplicate images", "pairs of duplicate images"),
        ),
    )


def _augmentation_section(folders: Mapping[str, Path], drawn: Path) -> Section:
    paragraphs = []
    if "augment_config" in folders:
        paragraphs.append(
            "Every training image is changed at random, differently in each epoch. The first image of each row is "
            "unchanged."
        )
    if "precompute" in folders:
        precomputed = read_json(folders["precompute"] / "metrics.json")
        paragraphs.append(
            f"The frozen backbone turns each image into {precomputed['num_features']} activations. "
            f"The head begins with {precomputed['head_begins']}."
        )
    picture = ("augmentations.png", "Images and their random views", "augmented images")
    return Section(
        heading="Enable augmentation, precompute activations",
        step=1,
        paragraphs=paragraphs,
        pictures=_pictures(drawn, "augment_config", picture),
    )


def _cross_validation_section(folder: Path, drawn: Path) -> Section:
    metrics = read_json(folder / "metrics.json")
    found = sentences.capitalised(sentences.suspects(metrics))
    way = " (confident learning). Look at them, and name an edited copy of the list in data.drop to leave images out"
    return Section(
        heading="What to expect, and the labels that look wrong",
        paragraphs=[
            sentences.cross_validation(metrics),
            f"{found}{way if metrics['num_suspects'] else ''}.",
            *(f"{text}." for text in sentences.unknown_classes(metrics)),
        ],
        pictures=_pictures(
            drawn, "cross_validate", ("suspects.png", "The labels that look wrong", "images with a doubtful label")
        ),
    )


# Training


def _training_sections(folders: Mapping[str, Path], drawn: Path) -> Iterator[Section]:
    if "lr_find_head" in folders:
        yield _lr_section(folders, drawn, "lr_find_head", 2, "Find the learning rate of the head")
    if "head_train" in folders:
        yield _training_section(folders, drawn, "head_train", 3, "Train the head on precomputed activations")
    if "head_train_augmented" in folders:
        yield _training_section(folders, drawn, "head_train_augmented", 4, "Train the head with augmentation")
    if "unfreeze" in folders:
        yield _unfreeze_section(folders["unfreeze"])
    if "lr_find_full" in folders:
        yield _lr_section(folders, drawn, "lr_find_full", 7, "Find the learning rate again, for all layers")
    if "full_train" in folders:
        yield _full_train_section(folders, drawn)


def _lr_section(folders: Mapping[str, Path], drawn: Path, stage: str, step: int, heading: str) -> Section:
    picture = ("lr_find.png", "Loss over the learning rate", "learning-rate sweep with the chosen rate")
    return Section(
        heading=heading,
        step=step,
        paragraphs=[sentences.lr_choice(read_json(folders[stage] / "lr.json"))],
        pictures=_pictures(drawn, stage, picture),
    )


def _training_section(folders: Mapping[str, Path], drawn: Path, stage: str, step: int, heading: str) -> Section:
    return Section(
        heading=heading,
        step=step,
        paragraphs=[_trained(folders[stage])],
        pictures=_training_pictures(drawn, stage),
    )


def _trained(folder: Path) -> str:
    metrics, cycles = read_json(folder / "metrics.json"), read_json(folder / "cycles.json")
    decays = cycles.get("weight_decays")
    if decays is None:
        kept = sentences.kept_model(cycles["kept"])
        optimizer = sentences.OPTIMIZERS[cycles.get("optimizer", "sgd")]
        how = (
            f"{metrics['epochs']} epochs of {optimizer} at a rate of up to {metrics['lr']:.3g}, batches of "
            f"{metrics['batch_size']}."
        )
    else:
        kept = sentences.kept_head(cycles)
        how = (
            f"L-BFGS minimises the training loss in {metrics['epochs']} passes over the activations, "
            f"{sentences.tried_decays(decays)}."
        )
    return (
        f"{how} {sentences.capitalised(kept)} is kept: validation loss {metrics['valid_loss']:.4f}, "
        f"accuracy {metrics['valid_accuracy']:.2%}."
    )


def _training_pictures(drawn: Path, stage: str) -> list[Picture]:
    return _pictures(
        drawn,
        stage,
        ("learning_curves.png", "Losses and accuracy", "learning curves with cycle boundaries"),
        ("schedule.png", "The learning rates", "learning-rate schedule"),
        ("weight_decay.png", "Losses for each weight decay", "training and validation loss over the weight decay"),
        ("sharpness.png", "Does it over-fit? Gap and sharpness at each cycle's end", "sharpness per cycle"),
    )


def _unfreeze_section(unfreeze: Path) -> Section:
    plan = read_json(unfreeze / "plan.json")
    header = ["layer group", "modules", "parameters", "rate, as multiple of the head's"]
    rows = [[g["name"], _span(g["modules"]), g["num_parameters"], f"{g['lr_factor']:.3g}"] for g in plan["groups"]]
    if lrs := plan.get("lrs"):
        header.append("rate")
        rows = [[*row, f"{lr:.3g}"] for row, lr in zip(rows, lrs, strict=True)]
    optimizer = sentences.optimizer(plan)
    return Section(
        heading="Unfreeze, with lower rates for earlier layers",
        step="5-6",
        paragraphs=[sentences.batch_norm(plan["batch_norm"]), *([] if optimizer is None else [optimizer])],
        table=Table(header, rows),
    )


def _span(modules: Sequence[str]) -> str:
    return modules[0] if len(modules) == 1 else f"{modules[0]} to {modules[-1]}"


def _full_train_section(folders: Mapping[str, Path], drawn: Path) -> Section:
    folder = folders["full_train"]
    cycles, verdict = read_json(folder / "cycles.json"), read_json(folder / "verdict.json")
    moved = [[g["name"], f"{g['weights']:.2%}", f"{g['features_cka']:.4f}"] for g in verdict["similarity"]["groups"]]
    return Section(
        heading="Train everything until over-fitting",
        step=8,
        paragraphs=[_trained(folder), *sentences.full_train_verdict(cycles, verdict)],
        pictures=_training_pictures(drawn, "full_train"),
        table=Table(["layer group", "change of weights in the first cycle", "feature similarity (linear CKA)"], moved),
    )


# The scores


def _score_sections(folders: Mapping[str, Path], drawn: Path) -> Iterator[Section]:
    if "tta_evaluate" in folders:
        yield _tta_section(folders["tta_evaluate"])
        yield from _calibration_sections(folders["tta_evaluate"])
        yield _predictions_section(_shown_scores(folders)[0], drawn)


def _tta_section(folder: Path) -> Section:
    metrics, card = read_json(folder / "metrics.json"), read_json(folder / "model" / "tta.json")
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
            sentences.tta_mode(metrics["valid"], card),
            *(sentences.tta_gain(split, metrics[split]) for split in splits),
            "Test images are used once, here; all choices are made on validation images.",
        ],
        table=Table(header, rows),
    )


def _calibration_sections(folder: Path) -> Iterator[Section]:
    """One section, or none for a folder that was made before there was a calibration."""
    found = read_json(folder / "metrics.json").get("calibration")
    if found is None:
        return
    columns = [_calibration_cells(found[how]) for how in ("plain", "tta")]
    yield Section(
        heading="Calibrated answers",
        paragraphs=[
            "`unfreeze predict` gives probabilities at a temperature that was fitted on the validation images, so that "
            "of answers given with 80 % some 80 % are right. The order of the classes, and so the accuracy, stays. All "
            "other scores in this report are of the probabilities as they come from the model.",
            "With `--coverage` it adds the set of classes that holds the true one for that share of images (chosen on "
            "validation images, checked here on test images); with `--novelty`, how unlike the training images an "
            "image is.",
        ],
        table=Table(
            ["on test" if "test" in found["plain"] else "fitted on valid", "plain", "TTA"],
            [[name, *(cells.get(name) for cells in columns)] for name in columns[0]],
        ),
    )


def _calibration_cells(found: Mapping[str, Any]) -> dict[str, str]:
    cells = {"temperature": f"{found['temperature']:.3f}"}
    if "test" not in found:
        return cells
    test, change = found["test"], found["test"]["log_loss_change"]
    return {
        **cells,
        "log loss before": f"{test['log_loss_before']:.4f}",
        "log loss after": f"{test['log_loss_after']:.4f}",
        "change (95 % interval)": f"{change['mean']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f})",
        "calibration error before": f"{test['calibration_error_before']:.4f}",
        "calibration error after": f"{test['calibration_error_after']:.4f}",
        **{
            f"sets asked to hold the true class for {level} %": sentences.set_coverage(sets)
            for level, sets in sentences.class_sets(test).items()
        },
    }


def _predictions_section(split: str, drawn: Path) -> Section:
    pictures = _pictures(
        drawn,
        "tta_evaluate",
        ("confusion.png", f"Confusion matrix on {split}, TTA", "confusion matrix"),
        ("calibration.png", "Confidence and accuracy", "reliability diagram"),
        ("mistakes.png", "The most confident mistakes", "misclassified images"),
    )
    return Section(heading="Correct and wrong predictions", pictures=pictures)
