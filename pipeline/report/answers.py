"""The sections of a report that show what the model answers: class by class, and image by image."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import read_json
from pipeline.report import sentences
from pipeline.report.html import Picture, Section, Shot, Table
from pipeline.report.reading import read_rows
from pipeline.report.scores import percent, read_score
from pipeline.report.tiles import tile_path

SHOWN_CLASSES = 40

Folders = Mapping[str, Path]


def answer_sections(folders: Folders, drawn: Path) -> Iterator[Section]:
    """Yield a section per question about the answers for unseen images."""
    score = read_score(folders)
    if score is None:
        return
    folder, pictures = folders["tta_evaluate"], drawn / "tta_evaluate"
    yield _classes_section(folder, pictures, score.split)
    yield _mistakes_section(folder, pictures, score.split)
    if (folder / "doubtful.json").exists():
        yield _doubtful_section(folder, pictures)


def _classes_section(folder: Path, drawn: Path, split: str) -> Section:
    confusion = Picture(drawn / "confusion.png", f"Confusion matrix on {split}", "confusion matrix")
    return Section(
        heading="Class by class",
        paragraphs=[
            "Found: the share of a class's images that are recognised. Precise: the share of answers with this "
            "class that are right. The worst found class comes first."
        ],
        table=_classes_table(folder / "classes.csv"),
        pictures=[confusion] if confusion.path.exists() else [],
    )


def _classes_table(file: Path) -> Table | None:
    if not file.exists():
        return None
    rows = sorted(read_rows(file), key=lambda row: (int(row["images"]) == 0, float(row["recall"])))
    table: list[list[Any]] = [
        [
            row["class"], int(row["images"]), int(row["correct"]), _share(row, "recall"),
            f"{100 * float(row['recall_low']):.0f} to {100 * float(row['recall_high']):.0f} %",
            percent(float(row["precision"])), f"{float(row['f1']):.3f}",
        ]
        for row in rows[:SHOWN_CLASSES]
    ]  # fmt: skip
    if (more := len(rows) - SHOWN_CLASSES) > 0:
        table.append([f"... {more} more, better found, in classes.csv", *[None] * 6])
    return Table(["class", "images", "correct", "found", "95 % interval", "precise", "F1"], table)


def _share(row: Mapping[str, str], name: str) -> str:
    return percent(float(row[name])) if int(row["images"]) else "no image"


def _mistakes_section(folder: Path, drawn: Path, split: str) -> Section:
    mistakes = read_json(folder / "mistakes.json")
    if not mistakes:
        return Section("The most confident mistakes", paragraphs=[f"There are none: all {split} images are right."])
    return Section(
        heading="The most confident mistakes",
        paragraphs=[
            "Wrong, and most certain of it. Look for labels that are wrong, for what such images have in common, and "
            "for what is missing among the training images.",
            *_about_maps(mistakes),
        ],
        shots=[_shot(drawn, "mistakes", i, x, f"{x['predicted']}? It is {x['label']}") for i, x in enumerate(mistakes)],
    )


def _doubtful_section(folder: Path, drawn: Path) -> Section:
    doubtful = read_json(folder / "doubtful.json")
    return Section(
        heading="The least confident hits",
        paragraphs=["Right, but only just: images like these are the next to go wrong.", *_about_maps(doubtful)],
        shots=[_shot(drawn, "doubtful", i, x, x["predicted"]) for i, x in enumerate(doubtful)],
    )


def _about_maps(shown: Sequence[Mapping[str, Any]]) -> list[str]:
    if not any(any(map(any, x.get("map", []))) for x in shown):
        return []
    return ["On the right, in orange: the places that spoke for the answer (Grad-CAM)."]


def _shot(drawn: Path, kind: str, row: int, shown: Mapping[str, Any], first: str) -> Shot:
    files = [tile_path(drawn, kind, row, suffix=suffix) for suffix in ("", "-where")]
    lines = [first, f"{percent(shown['confidence'])} certain", Path(shown["path"]).name]
    return Shot([file for file in files if file.exists()], lines, shown["path"])


def calibration_sections(folders: Folders, drawn: Path) -> Iterator[Section]:
    """Yield how far the probabilities can be trusted; nothing for a run without scores."""
    if "tta_evaluate" not in folders:
        return
    reliability = Picture(drawn / "tta_evaluate" / "calibration.png", "Confidence and accuracy", "reliability diagram")
    found = read_json(folders["tta_evaluate"] / "metrics.json").get("calibration")
    pictures = [reliability] if reliability.path.exists() else []
    if found is None:  # folders that were made before there was a calibration
        if pictures:
            yield Section("Confidence and accuracy", pictures=pictures)
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
        pictures=pictures,
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
