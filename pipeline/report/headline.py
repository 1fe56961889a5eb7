"""The numbers that sum up a run, read from its folders: those that a table of runs shows, under short names."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.files import read_json
from pipeline.report.scores import TRAINING

Folders = Mapping[str, Path]
Scores = dict[str, float]
Timings = Mapping[str, Mapping[str, float]]
"""Durations by stage."""


def headline(folders: Folders, timings: Timings) -> Scores:
    """Return what matters most; a number that the run has not measured is left out.

    `accuracy` and its 95 % interval are of plain test images, `accuracy_tta` of test images with test-time
    augmentation. `valid_loss` and `valid_accuracy` are of the kept model and plain validation images. `epochs_run`,
    `kept_cycle` (0: the model as it was before), `train_seconds` and `images_per_s` (training images per second of the
    whole stage, with validation) are of the last stage that trained. `lr_head` and `lr_full` are the rates that were
    used, or what the finder found where nothing was trained with it yet.
    """
    return _rounded([*_test(folders), *_training(folders, timings), *_rates(folders)])


def details(folders: Folders) -> Scores:
    """Return further scores, under `<stage>/<name>`."""
    metrics = {stage: _metrics(folders, stage) for stage in DETAILS}
    found = ((f"{s}/{name}", _at(metrics[s], path)) for s, names in DETAILS.items() for name, path in names.items())
    return _rounded((name, value) for name, value in found if isinstance(value, int | float))


def _rounded(scores: Iterable[tuple[str, float]]) -> Scores:
    """Round to five digits, which a column of a table can show; the folders hold the exact numbers."""
    return {name: float(f"{value:.5g}") for name, value in scores}


RATES = {
    "lr_head": ("head_train_augmented", "head_train", "lr_find_head"),
    "lr_full": ("full_train", "lr_find_full"),
}
"""Where a rate is read: from the first of these stages that has one."""

DETAILS: dict[str, dict[str, str]] = {
    "cross_validate": {"accuracy": "accuracy", "log_loss": "log_loss", "suspects": "num_suspects"},
    "head_train": {"valid_accuracy": "valid_accuracy", "valid_loss": "valid_loss"},
    "head_train_augmented": {"valid_accuracy": "valid_accuracy", "valid_loss": "valid_loss"},
    "tta_evaluate": {
        "log_loss": "test/plain/log_loss",
        "log_loss_tta": "test/tta/log_loss",
        "macro_f1": "test/plain/macro_f1",
        "tta_gain": "test/tta_gain/accuracy/mean",
        "tta_gain_p": "test/tta_gain_p_value",
        "calibration_error": "calibration/plain/test/calibration_error_after",
        "temperature": "calibration/plain/temperature",
        "valid_accuracy_tta": "valid/tta/accuracy",
    },
}
"""Stage, name, and the place in its `metrics.json`."""


def _test(folders: Folders) -> Iterator[tuple[str, float]]:
    test = _metrics(folders, "tta_evaluate").get("test")
    if test is not None:
        yield from ((name, test["plain"][name]) for name in ("accuracy", "accuracy_low", "accuracy_high"))
        yield "accuracy_tta", test["tta"]["accuracy"]


def _training(folders: Folders, timings: Timings) -> Iterator[tuple[str, float]]:
    stage = next((s for s in TRAINING if s in folders), None)
    if stage is None:
        return
    metrics, cycles = _metrics(folders, stage), read_json(folders[stage] / "cycles.json")
    yield "valid_loss", metrics["valid_loss"]
    yield "valid_accuracy", metrics["valid_accuracy"]
    yield "kept_cycle", max(cycles["kept"]["cycles"])
    if "epochs" in metrics:
        yield "epochs_run", metrics["epochs"]
    seconds = timings.get(stage, {}).get("seconds")
    if seconds:
        yield "train_seconds", seconds
        if "epochs" in metrics and "ingest" in folders:
            yield "images_per_s", metrics["epochs"] * _metrics(folders, "ingest")["images"]["train"] / seconds


def _rates(folders: Folders) -> Iterator[tuple[str, float]]:
    for name, stages in RATES.items():
        found = (_metrics(folders, stage).get("lr") for stage in stages)
        if (lr := next((lr for lr in found if lr is not None), None)) is not None:
            yield name, lr


def _metrics(folders: Folders, stage: str) -> dict[str, Any]:
    return dict(read_json(folders[stage] / "metrics.json")) if stage in folders else {}


def _at(metrics: Any, path: str) -> Any:
    for part in path.split("/"):
        metrics = metrics.get(part) if isinstance(metrics, dict) else None
    return metrics
