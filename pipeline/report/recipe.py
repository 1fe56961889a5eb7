"""The report of a run: first what came out, then the recipe's steps in order, each with its pictures and figures.

It is made from the folders that the stages left, and from the pictures that were drawn of them. Stages that have not
run are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.files import read_json
from pipeline.report import first_screen, sentences
from pipeline.report.advice import advise
from pipeline.report.answers import answer_sections, calibration_sections
from pipeline.report.colophon import closing_sections
from pipeline.report.facts import Facts
from pipeline.report.html import Picture, Report, Section, Shot, Table
from pipeline.report.reading import read_rows
from pipeline.report.scores import percent
from pipeline.report.tiles import tile_path

SAMPLES_PER_CLASS = 4
AUGMENTED_ROWS = 4
AUGMENTED_VIEWS = 6
NOTHING = Facts()


def build_report(folders: Mapping[str, Path], drawn: Path, facts: Facts = NOTHING) -> Report:
    """Gather what the stages left.

    `folders` maps stage names to their published folders; those that are missing are left out of the report. The
    pictures of a stage lie in `drawn/<stage>/`; those that are missing are left out too. `facts` are what the folders
    do not hold.
    """
    found = {stage: folder for stage, folder in folders.items() if folder.is_dir()}
    return Report(
        title=first_screen.title(found),
        figure=first_screen.figure(found),
        headline=first_screen.headline(found),
        tiles=list(first_screen.tiles(found, facts)),
        verdict=first_screen.verdict(found),
        sections=[
            *_next_sections(found),
            *answer_sections(found, drawn),
            *calibration_sections(found, drawn),
            *_score_sections(found),
            *_data_sections(found, drawn),
            *_training_sections(found, drawn),
            *closing_sections(found, facts),
        ],
    )


def _next_sections(folders: Mapping[str, Path]) -> list[Section]:
    """What the verdict has no room for."""
    _, *others = advise(folders) or [""]
    return [Section(heading="Also worth trying", paragraphs=others)] if others else []


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
        shots=_sample_shots(ingest, drawn),
        paragraphs=[
            f"{counts['found']} files were found, {counts['used']} images are used; {counts['converted']} were "
            f"converted, {counts['flagged']} flagged and {counts['rejected']} rejected (ledger.jsonl says which "
            f"and why). {counts['copies']} are exact copies of other images, {counts['near_copies']} are near copies."
        ],
        pictures=_pictures(
            drawn,
            "ingest",
            ("class_counts.png", "Images by class and split", "bars of image counts"),
            ("troubles.png", "Rejected and flagged files", "rejected and flagged files"),
            ("duplicates.png", "Duplicate images", "pairs of duplicate images"),
        ),
    )


def _sample_shots(ingest: Path, drawn: Path) -> list[Shot]:
    """Show some training images of the first classes."""
    shots = []
    for i, name in enumerate(read_json(ingest / "classes.json")):
        files = [tile_path(drawn / "ingest", "samples", i, j) for j in range(SAMPLES_PER_CLASS)]
        if shown := [file for file in files if file.exists()]:
            shots.append(Shot(shown, [name], f"training images of {name}"))
    return shots


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
    shots = []
    for i in range(AUGMENTED_ROWS):
        files = [tile_path(drawn / "augment_config", "augmentations", i, j) for j in range(AUGMENTED_VIEWS)]
        if shown := [file for file in files if file.exists()]:
            shots.append(Shot(shown, [], "an image and random views of it"))
    return Section(
        heading="Enable augmentation, precompute activations",
        step=1,
        paragraphs=paragraphs,
        shots=shots,
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
        shots=_suspect_shots(folder, drawn / "cross_validate"),
    )


def _suspect_shots(folder: Path, drawn: Path) -> list[Shot]:
    shots = []
    for i, row in enumerate(read_rows(folder / "suspects.csv")):
        if (file := tile_path(drawn, "suspects", i)).exists():
            says = [
                f"{row['label']}, or {row['suggested']}?",
                f"{percent(float(row['self_confidence']))} for the label",
            ]
            shots.append(Shot([file], [*says, Path(row["path"]).name], row["path"]))
    return shots


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
        epochs = sentences.counted(metrics["epochs"], "epoch")
        how = f"{epochs} of {optimizer} at a rate of up to {metrics['lr']:.3g}, batches of {metrics['batch_size']}."
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


def _score_sections(folders: Mapping[str, Path]) -> Iterator[Section]:
    if "tta_evaluate" in folders:
        yield _tta_section(folders["tta_evaluate"])


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
