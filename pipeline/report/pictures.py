"""The pictures of each stage, drawn from what the stage left in its folder.

Nothing is computed here that a stage computes: other colours or words redraw pictures, and rerun no stage. matplotlib,
which takes half a second to import, is loaded by those who plot.
"""

import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path

import numpy as np

from pipeline.cells import read_cells
from pipeline.data.decode import DecodeError, decode_framed
from pipeline.data.manifest import read_root
from pipeline.files import read_json, read_jsonl
from pipeline.journal import read_points
from pipeline.report.contact_sheet import Caption, contact_sheet, mistakes_sheet
from pipeline.report.ledger import first_lines
from pipeline.report.reading import Folders, background_of, read_image, read_images, read_rows
from pipeline.report.tiles import TILES, save_files, save_looks, save_row

SHOWN_CLASSES = 12
SHOWN_PER_CLASS = 8
TILES_PER_CLASS = 4
SHOWN_TROUBLES = 24
SHOWN_DUPLICATES = 12
SHOWN_SUSPECTS = 24
TILES_OF_SUSPECTS = 12


def draw_stage(stage: str, folders: Folders, out: Path) -> list[Path]:
    """Draw the pictures of one stage into `out`, and return their paths; a stage without pictures draws nothing.

    `folders` must hold the stage's own folder, and that of `ingest` where images are shown. `out` is created, and PNG
    files and tiles in it are removed first. An image that cannot be read any more is skipped. Raises FileNotFoundError
    where a folder lacks a file, and KeyError where `folders` lacks a folder.
    """
    if stage not in PAINTERS:
        return []
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.png"):
        old.unlink()
    shutil.rmtree(out / TILES, ignore_errors=True)
    for draw in PAINTERS[stage]:
        draw(folders[stage], folders, out)
    return sorted(out.glob("*.png"))


# ingest


def _draw_class_counts(ingest: Path, _: Folders, out: Path) -> None:
    from pipeline.report.data_plots import plot_class_counts

    plot_class_counts(out / "class_counts.png", counts=read_json(ingest / "class_counts.json"))


def _draw_samples(ingest: Path, folders: Folders, out: Path) -> None:
    counts = read_json(ingest / "class_counts.json").get("train", {})
    shown = read_json(ingest / "classes.json")[:SHOWN_CLASSES]
    wanted = {label: min(SHOWN_PER_CLASS, counts.get(label, 0)) for label in shown}
    paths = _first_of_each(ingest / "manifest.jsonl", wanted)
    rows = [(label, read_images(folders, paths[label])) for label in shown]
    contact_sheet(out / "samples.png", rows=rows)
    for i, (_, images) in enumerate(rows):
        save_row(out, "samples", i, images[:TILES_PER_CLASS])


def _draw_troubles(ingest: Path, folders: Folders, out: Path) -> None:
    found = first_lines(ingest, SHOWN_TROUBLES)
    troubles = [*found["rejected"], *found["flagged"]][:SHOWN_TROUBLES]
    if troubles:
        rows = [(f"{x['path']}: {x['reason']}", read_images(folders, [x["path"]])) for x in troubles]
        contact_sheet(out / "troubles.png", rows=rows)


def _draw_duplicates(ingest: Path, folders: Folders, out: Path) -> None:
    pairs = [*islice(read_jsonl(ingest / "duplicates.jsonl"), SHOWN_DUPLICATES)]
    if pairs:
        rows = [(f"{x['first']} = {x['second']}", read_images(folders, [x["first"], x["second"]])) for x in pairs]
        contact_sheet(out / "duplicates.png", rows=rows)


def _first_of_each(manifest: Path, wanted: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the paths of the first training images of each class, as many as are wanted; reads no further."""
    found: dict[str, list[str]] = defaultdict(list)
    missing = sum(wanted.values())
    for sample in read_jsonl(manifest) if missing else ():
        label = sample["label"]
        if sample["split"] == "train" and len(found[label]) < wanted.get(label, 0):
            found[label].append(sample["path"])
            missing -= 1
            if not missing:
                break
    return found


# augment_config


def _draw_augmentations(augment_config: Path, folders: Folders, out: Path) -> None:
    """Draw each sample as it is, and beside it one random view per seed."""
    import torch

    from pipeline.data.augment import read_policy

    samples = read_json(augment_config / "samples.json")
    policy = read_policy(augment_config / "policy.yaml", image_size=samples["image_size"])
    root, rows = read_root(folders["ingest"]), []
    with torch.random.fork_rng(devices=[]):
        for row in samples["rows"]:
            try:
                path = root / row["path"]
                plain, base = decode_framed(path, policy.framing), policy.decode_base(path)
            except DecodeError:
                continue
            views = [policy.view(base, seed=tuple(seed)) for seed in row["seeds"]]
            rows.append((row["label"], [plain, *views]))
    contact_sheet(out / "augmentations.png", rows=rows)
    for i, (_, images) in enumerate(rows):
        save_row(out, "augmentations", i, images)


# cross_validate


def _draw_suspects(cross_validate: Path, folders: Folders, out: Path) -> None:
    root, background = read_root(folders["ingest"]), background_of(folders["ingest"])
    rows = [*islice(read_rows(cross_validate / "suspects.csv"), SHOWN_SUSPECTS)]
    if rows:
        mistakes_sheet(
            out / "suspects.png",
            images=[read_image(root / row["path"], background) for row in rows],
            captions=[Caption(r["path"], r["label"], r["suggested"], float(r["self_confidence"])) for r in rows],
            columns=6,
            is_label_doubted=True,
        )
        save_files(out, "suspects", (row["path"] for row in rows), folders["ingest"], at_most=TILES_OF_SUSPECTS)


# lr_find_head, lr_find_full


def _draw_lr_find(lr_find: Path, _: Folders, out: Path) -> None:
    from pipeline.report.lr_find_plot import plot_lr_find

    choice = read_json(lr_find / "lr.json")
    sweeps: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for row in read_rows(lr_find / "curve.csv"):
        sweeps[row["repeat"]].append((float(row["lr"]), float(row["loss"]), float(row["smoothed_loss"])))
    plot_lr_find(
        out / "lr_find.png",
        curves=[(points[:, 0], points[:, 1], points[:, 2]) for points in map(np.array, sweeps.values())],
        chosen=choice["lr"],
        others={rule: lr for rule, lr in choice["others"].items() if rule != choice["rule"]},
        falls=choice["improved"],
    )


# Training stages


def _draw_schedule(training: Path, _: Folders, out: Path) -> None:
    from pipeline.report.training_plots import plot_schedule

    cycles = read_json(training / "cycles.json")
    header, *rows = read_cells(training / "schedule.csv")
    plot_schedule(
        out / "schedule.png",
        lrs=np.array(rows, dtype=np.float64)[:, 1:],
        group_names=header[1:],
        cycle_starts=[cycles["steps_per_epoch"] * epochs for epochs in accumulate((0, *cycles["cycle_epochs"][:-1]))],
        steps_per_epoch=cycles["steps_per_epoch"],
    )


def _draw_head_plan(training: Path, folders: Folders, out: Path) -> None:
    """Draw the schedule of SGD, or what each weight decay of the solver gave."""
    from pipeline.report.training_plots import plot_weight_decays

    cycles = read_json(training / "cycles.json")
    if "weight_decays" not in cycles:
        _draw_schedule(training, folders, out)
        return
    before, *ends = cycles["ends"]
    plot_weight_decays(
        out / "weight_decay.png",
        decays=cycles["weight_decays"],
        train=[end["train_loss"] for end in ends],
        valid=[end["valid_loss"] for end in ends],
        before=before["valid_loss"],
        kept=[cycle - 1 for cycle in cycles["kept"]["cycles"] if cycle],
        kept_loss=cycles["kept"]["valid_loss"],
    )


def _draw_learning_curves(training: Path, _: Folders, out: Path) -> None:
    from pipeline.report.training_plots import plot_learning_curves

    cycles, points = read_json(training / "cycles.json"), read_points(training / "journal.jsonl")
    ends, kept, since = cycles["ends"], cycles["kept"], cycles["verdict"]["overfitting_since_cycle"]

    def column(name: str, *, after: int = 0) -> tuple[list[int], list[float]]:
        found = {step + after: row[name] for step, row in points.items() if name in row}
        return list(found), list(found.values())

    plot_learning_curves(
        out / "learning_curves.png",
        train=column("train_loss"),  # of a batch before the step that it leads to; the others are measured after it
        train_plain=column("train_plain_loss", after=1),
        valid=column("valid_loss", after=1),
        valid_accuracy=column("valid_accuracy", after=1),
        cycle_ends=[end["step"] for end in ends[1:]],
        kept_steps=[ends[cycle]["step"] for cycle in kept["cycles"]],
        kept_scores=(kept["valid_loss"], kept["valid_accuracy"]),
        overfit_step=None if since is None else ends[since - 1]["step"],
        steps_per_epoch=cycles["steps_per_epoch"],
        period="weight decay" if "weight_decays" in cycles else "cycle",
    )


def _draw_sharpness(full_train: Path, _: Folders, out: Path) -> None:
    from pipeline.report.training_plots import plot_sharpness

    rows = read_json(full_train / "verdict.json")["sharpness"]

    def column(name: str) -> tuple[list[int], list[float]]:
        found = {row["cycle"]: row[name] for row in rows if row[name] is not None}
        return list(found), list(found.values())

    gap, rise, hessian_top = map(column, ("generalisation_gap", "rise", "hessian_top"))
    plot_sharpness(out / "sharpness.png", gap=gap, rise=rise, hessian_top=hessian_top)


# tta_evaluate


def _draw_confusion(tta_evaluate: Path, _: Folders, out: Path) -> None:
    from pipeline.report.score_plots import plot_confusion

    header, *rows = read_cells(tta_evaluate / "confusion.csv")
    counts = np.array([row[1:] for row in rows]).astype(np.int64)
    plot_confusion(out / "confusion.png", confusion=counts, classes=header[1:])


def _draw_calibration(tta_evaluate: Path, _: Folders, out: Path) -> None:
    from pipeline.report.score_plots import plot_calibration

    rows = [*read_rows(tta_evaluate / "calibration.csv")]

    def column(name: str) -> list[float]:
        return [float(row[name]) if row[name] else math.nan for row in rows]

    plot_calibration(
        out / "calibration.png",
        edges=[*column("low"), float(rows[-1]["high"])],
        count=column("count"),
        correct=column("correct"),
        confidence=column("confidence"),
        accuracy=column("accuracy"),
        accuracy_low=column("accuracy_low"),
        accuracy_high=column("accuracy_high"),
    )


def _draw_mistakes(tta_evaluate: Path, folders: Folders, out: Path) -> None:
    root, background = read_root(folders["ingest"]), background_of(folders["ingest"])
    shown = [(x, read_image(root / x["path"], background)) for x in read_json(tta_evaluate / "mistakes.json")]
    mistakes_sheet(
        out / "mistakes.png",
        images=[image for _, image in shown],
        captions=[Caption(x["path"], x["label"], x["predicted"], x["confidence"]) for x, _ in shown],
    )
    for kind in ("mistakes", "doubtful"):
        save_looks(out, kind, tta_evaluate, folders)


_Draw = Callable[[Path, Folders, Path], None]
"""Takes the stage's folder, all folders, and the folder to draw into."""

PAINTERS: dict[str, Sequence[_Draw]] = {
    "ingest": (_draw_class_counts, _draw_samples, _draw_troubles, _draw_duplicates),
    "augment_config": (_draw_augmentations,),
    "cross_validate": (_draw_suspects,),
    "lr_find_head": (_draw_lr_find,),
    "head_train": (_draw_head_plan, _draw_learning_curves),
    "head_train_augmented": (_draw_schedule, _draw_learning_curves),
    "lr_find_full": (_draw_lr_find,),
    "full_train": (_draw_schedule, _draw_learning_curves, _draw_sharpness),
    "tta_evaluate": (_draw_confusion, _draw_calibration, _draw_mistakes),
}
"""The functions that draw the pictures of each stage that has some."""
