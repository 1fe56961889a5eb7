"""A small run, as the stages would leave it: just enough to draw pictures and write lines from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.files import write_json, write_text
from pipeline.report import style

CLASSES = ("cat", "dog")
NUM_TRAIN = 10
POLICY = """\
framing: {fit: zoom, background: white, margin: 0.0}
augment: {flip: horizontal, rotate_deg: 10.0, shift: 0.1, zoom: 1.1, shear_deg: 0.0, border: reflect, crop_min: 1.0,
  brightness: 0.1, contrast: 0.1}
"""
SCORES = {
    "num_images": 2,
    "num_views": 4.0,
    "plain": {
        "accuracy": 0.5, "accuracy_low": 0.1, "accuracy_high": 0.9, "log_loss": 0.7, "calibration_error": 0.1,
        "macro_f1": 0.5,
    },
    "tta": {
        "accuracy": 1.0, "accuracy_low": 0.3, "accuracy_high": 1.0, "log_loss": 0.6, "calibration_error": 0.2,
        "macro_f1": 1.0,
    },
    "tta_gain": {
        "accuracy": {"mean": 0.5, "low": 0.0, "high": 1.0},
        "log_loss": {"mean": 0.1, "low": -0.1, "high": 0.3},
    },
    "tta_gain_p_value": 1.0,
}  # fmt: skip

CALIBRATION = {
    "temperature": 1.25,
    "test": {
        "num_images": 2, "log_loss_before": 0.7, "log_loss_after": 0.65,
        "log_loss_change": {"mean": -0.05, "low": -0.1, "high": 0.01},
        "calibration_error_before": 0.1, "calibration_error_after": 0.08,
        "sets_90": {"coverage": 0.5, "coverage_low": 0.1, "coverage_high": 0.9, "mean_size": 1.5},
    },
}  # fmt: skip
CALIBRATED = {"calibration": {"plain": CALIBRATION, "tta": CALIBRATION}}


@pytest.fixture
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw small, which is much faster."""
    monkeypatch.setattr(style, "_DPI", 40)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """The folder of each stage of a small run."""
    root = tmp_path / "artifacts"
    write_ingest(root / "ingest")
    write_augment_config(root / "augment_config")
    write_precompute(root / "precompute")
    write_cross_validate(root / "cross_validate")
    write_unfreeze(root / "unfreeze")
    for stage in ("lr_find_head", "lr_find_full"):
        write_lr_find(root / stage)
    write_training(root / "head_train", ["head"])
    write_training(root / "head_train_augmented", ["head"])
    write_training(root / "full_train", ["early", "head"])
    write_verdict(root / "full_train")
    write_tta_evaluate(root / "tta_evaluate")
    return {folder.name: folder for folder in root.iterdir()}


def write_ingest(folder: Path) -> None:
    """Ten train images and one test image of each class; one file was rejected, one flagged, one is there twice."""
    (folder / "images").mkdir(parents=True)
    samples, colours = [], np.random.default_rng(0).integers(0, 255, (2, NUM_TRAIN + 1, 4, 4, 3), dtype=np.uint8)
    for label, name in enumerate(CLASSES):
        for i in range(NUM_TRAIN + 1):
            path = f"images/{name}-{i}.png"
            Image.fromarray(colours[label, i]).save(folder / path)
            samples.append({"path": path, "label": name, "split": "test" if i == NUM_TRAIN else "train"})
    write_lines(folder / "manifest.jsonl", samples)
    write_lines(
        folder / "ledger.jsonl",
        [
            {"path": "images/cat-0.png", "verdict": "accepted", "reason": ""},
            {"path": "images/cat-1.png", "verdict": "flagged", "reason": "one colour only"},
            {"path": "notes.txt", "verdict": "rejected", "reason": "not an image but text"},
        ],
    )
    pair = {"first": "images/cat-0.png", "second": "images/dog-0.png", "exact": True}
    write_lines(folder / "duplicates.jsonl", [pair | {"splits": ["train", "train"], "labels": [*CLASSES]}])
    write_json(folder / "classes.json", CLASSES)
    write_json(folder / "source.json", {"root": None})
    write_json(
        folder / "class_counts.json", {"train": dict.fromkeys(CLASSES, NUM_TRAIN), "test": dict.fromkeys(CLASSES, 1)}
    )
    write_json(
        folder / "metrics.json",
        {
            "found": 23, "used": 22, "accepted": 21, "converted": 0, "flagged": 1, "rejected": 1, "ignored": 0,
            "classes": 2, "images": {"train": 20, "test": 2}, "unlabelled": 0, "copies": 1, "near_copies": 0,
            "copies_across_splits": 0, "copies_across_labels": 1,
        },
    )  # fmt: skip
    write_settings(folder, {"data.background": "white", "data.duplicates": "report"})


def write_augment_config(folder: Path) -> None:
    folder.mkdir()
    write_text(folder / "policy.yaml", POLICY)
    rows = [
        {
            "label": name,
            "path": f"images/{name}-0.png",
            "sha256": name,
            "seeds": [[0, "contact sheet", view, name] for view in range(3)],
        }
        for name in CLASSES
    ]
    write_json(folder / "samples.json", {"image_size": 32, "rows": rows})
    write_json(folder / "metrics.json", {"num_transforms": 5})
    write_settings(folder, {})


def write_precompute(folder: Path) -> None:
    folder.mkdir()
    metrics = {"num_features": 512, "images": {"train": 20, "valid": 4}, "views": 2, "head_begins": "random weights"}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "model.json", {"arch": "resnet18", "weights": "glyphs", "licence": None})
    write_settings(folder, {"model.arch": "resnet18", "model.weights": "glyphs"})


def write_cross_validate(folder: Path) -> None:
    folder.mkdir()
    metrics = {
        "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "log_loss": 0.25, "log_loss_low": 0.125,
        "log_loss_high": 0.5, "num_images": 20, "num_folds": 5, "num_suspects": 2, "num_unknown": 0,
    }  # fmt: skip
    write_json(folder / "metrics.json", metrics)
    rows = "images/cat-3.png,cat,dog,0.010000,-0.970000\nimages/dog-4.png,dog,cat,0.200000,-0.500000\n"
    write_text(folder / "suspects.csv", f"path,label,suggested,self_confidence,margin\n{rows}")


def write_lr_find(folder: Path) -> None:
    folder.mkdir()
    rows = [(repeat, i, 10 ** (i / 4 - 4), 2 - i / 20) for repeat in (0, 1) for i in range(12)]
    table = "".join(f"{repeat},{i},{lr},{loss},{loss}\n" for repeat, i, lr, loss in rows)
    write_text(folder / "curve.csv", f"repeat,step,lr,loss,smoothed_loss\n{table}")
    write_json(folder / "lr.json", lr_json())


def lr_json(*, rule: str = "recipe", improved: bool = True, unusable: Sequence[str] = ()) -> dict[str, object]:
    others = {"recipe": 0.01, "valley": 0.002}
    return {
        "lr": 0.01, "rule": rule, "improved": improved, "repeats": [0.01, 0.01], "spread": 1.5, "others": others,
        "unusable": [*unusable], "widened": [], "swept": [1e-4, 1.0], "usable": True,
    }  # fmt: skip


def write_training(folder: Path, groups: Sequence[str]) -> None:
    """Two cycles, of one epoch and of two, with five steps in each epoch; the second cycle is kept."""
    folder.mkdir()
    points = [f'{{"step": {i}, "values": {{"train_loss": {1 - i / 20}}}}}' for i in range(15)]
    ends = [
        f'{{"step": {step - 1}, "values": {{"valid_loss": {loss}, "valid_accuracy": 0.9, "train_plain_loss": 0.3}}}}'
        for step, loss in ((0, 0.9), (5, 0.6), (15, 0.5))
    ]
    write_text(folder / "journal.jsonl", "\n".join([*points, *ends]) + "\n")
    rates = "".join(",".join(map(repr, [i, *(0.1 / (i + 1) for _ in groups)])) + "\n" for i in range(15))
    write_text(folder / "schedule.csv", f"step,{','.join(groups)}\n{rates}")
    write_json(folder / "cycles.json", cycles_json())
    metrics = {"lr": 0.01, "batch_size": 4, "epochs": 3, "valid_loss": 0.5, "valid_accuracy": 0.9}
    write_json(folder / "metrics.json", metrics)


def write_solved_head(folder: Path) -> None:
    """Change the folder of a training to that of a head that the solver trained; the second of two decays is kept."""
    cycles = cycles_json() | {"solver": "lbfgs", "weight_decays": [1.0, 0.25], "steps_per_epoch": 1, "views": 1}
    write_json(folder / "cycles.json", {k: v for k, v in cycles.items() if k not in ("cycle_epochs", "schedule")})
    (folder / "schedule.csv").unlink()
    write_json(folder / "metrics.json", {"weight_decay": 0.25, "epochs": 15, "valid_loss": 0.5, "valid_accuracy": 0.9})


def cycles_json() -> dict[str, object]:
    losses = ((0, 0, 0, 0.8, 0.9), (1, 1, 5, 0.5, 0.6), (2, 3, 15, 0.3, 0.5))
    names = ("cycle", "epoch", "step", "train_loss", "valid_loss")
    return {
        "ends": [dict(zip(names, row, strict=True)) | {"valid_accuracy": 0.9} for row in losses],
        "kept": {"snapshots": "best", "cycles": [2], "train_loss": 0.3, "valid_loss": 0.5, "valid_accuracy": 0.9},
        "verdict": {"best_cycle": 2, "overfitting_since_cycle": None},
        "num_cycles": 2,
        "cycle_epochs": [1, 2],
        "steps_per_epoch": 5,
        "schedule": "sgdr",
        "optimizer": "sgd",
        "train_plain": {"images": 2000, "standard_error": 0.012},
    }


def write_verdict(folder: Path) -> None:
    groups = [{"name": "early", "weights": 0.01, "features_cka": 0.999}]
    sharpness = [{"cycle": i, "generalisation_gap": 0.1 + i, "rise": 0.2, "hessian_top": 3.0 - i} for i in range(3)]
    similarity = {
        "before": 0.9, "after": 0.6, "change": -0.3, "interval": [-0.4, -0.2], "noise": [-0.1, 0.1], "similar": False,
        "outcome": "different", "groups": groups,
    }  # fmt: skip
    write_json(folder / "verdict.json", {"similarity": similarity, "sharpness": sharpness})


def write_unfreeze(folder: Path) -> None:
    folder.mkdir()
    groups = [
        {"name": "early", "modules": ["conv1", "layer4"], "num_parameters": 12345, "lr_factor": 0.5},
        {"name": "head", "modules": ["head"], "num_parameters": 10, "lr_factor": 1.0},
    ]
    plan = {"groups": groups, "lr_ratio": 2.0, "lrs": None, "schedule": "all", "batch_norm": "frozen"}
    write_json(folder / "plan.json", plan | {"optimizer": "sgd", "optimizer_setting": "auto"})


def write_tta_evaluate(folder: Path) -> None:
    (folder / "model").mkdir(parents=True)
    write_json(folder / "metrics.json", {"valid": SCORES, "test": SCORES, "chosen": "tta"} | CALIBRATED)
    write_text(folder / "confusion.csv", "label,cat,dog\ncat,1,0\ndog,1,0\n")
    header = "low,high,count,correct,confidence,accuracy,accuracy_low,accuracy_high"
    write_text(folder / "calibration.csv", f"{header}\n0.0,0.5,0,0,,,0.0,1.0\n0.5,1.0,2,1,0.8,0.5,0.1,0.9\n")
    mistake = {"path": "images/dog-10.png", "label": "dog", "predicted": "cat", "confidence": 0.9}
    hit = {"path": "images/cat-10.png", "label": "cat", "predicted": "cat", "confidence": 0.55}
    write_json(folder / "mistakes.json", [mistake | {"map": [[0, 255], [128, 0]]}])
    write_json(folder / "doubtful.json", [hit | {"map": [[0]]}])
    header = "class,images,correct,precision,recall,recall_low,recall_high,f1"
    write_text(folder / "classes.csv", f"{header}\ncat,1,1,0.5,1.0,0.2,1.0,0.667\ndog,1,0,0.0,0.0,0.0,0.8,0.0\n")
    write_json(folder / "model" / "model.json", {"image_size": 32})
    write_text(folder / "model" / "policy.yaml", POLICY)
    write_json(folder / "model" / "tta.json", {"tta": {"mode": "augment"}, "seed": 0, "plain_weight": None})


def write_settings(folder: Path, settings: dict[str, object]) -> None:
    write_json(folder / "stage.json", {"settings": settings})


def write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
