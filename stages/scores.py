"""What DVC's own views show: a dozen numbers, and the curves that are worth comparing.

Reads the folders of the stages that measured something. Writes `metrics.json`, which is kept in git so that `dvc
metrics diff` can compare with any commit, and `artifacts/plots/`: points for `dvc plots show`, as JSON because DVC
takes the numbers of a CSV file for words. `artifacts/` holds all other numbers.
"""

import csv
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.console import complain
from pipeline.files import atomic_folder, read_json, write_json
from pipeline.harness.dag import METRICS, PLOTS
from pipeline.harness.stop import leave, obeying
from pipeline.paths import ARTIFACTS

TRAINING = ("head_train", "head_train_augmented", "full_train")
FINDERS = ("lr_find_head", "lr_find_full")


def main() -> int:
    """Write the numbers and the points of the working copy."""
    try:
        write_json(METRICS, headline(ARTIFACTS))
        shutil.rmtree(PLOTS, ignore_errors=True)
        with atomic_folder(PLOTS) as folder:
            for name in TRAINING:
                ends = read_json(ARTIFACTS / name / "cycles.json")["ends"]
                write_json(folder / f"{name}.json", _points(ends, ("epoch", "train_loss", "valid_loss")))
            for name in FINDERS:
                with (ARTIFACTS / name / "curve.csv").open(encoding="utf-8", newline="") as file:
                    write_json(folder / f"{name}.json", mean_sweep(csv.DictReader(file)))
    except (ValueError, OSError) as error:
        complain("scores", str(error))
        return 1
    return 0


def headline(artifacts: Path) -> dict[str, float]:
    """The numbers by which runs are compared; those of test images only where there are any."""

    def metrics(stage: str) -> dict[str, Any]:
        found: dict[str, Any] = read_json(artifacts / stage / "metrics.json")
        return found

    ingest, crossed, trained = metrics("ingest"), metrics("cross_validate"), metrics("full_train")
    tested = metrics("tta_evaluate").get("test")
    numbers: dict[str, float] = {}
    if tested is not None:
        plain, tta = tested["plain"], tested["tta"]
        numbers |= {name: plain[name] for name in ("accuracy", "accuracy_low", "accuracy_high", "log_loss")}
        numbers |= {"accuracy_tta": tta["accuracy"], "log_loss_tta": tta["log_loss"]}
    numbers |= {name: trained[name] for name in ("valid_accuracy", "valid_loss", "train_loss", "epochs", "kept_cycle")}
    numbers["accuracy_expected"] = crossed["accuracy"]
    numbers |= {"lr_head": metrics("lr_find_head")["lr"], "lr_full": metrics("lr_find_full")["lr"]}
    return numbers | {"train_images": ingest["images"]["train"]}


def mean_sweep(rows: Iterable[Mapping[str, str]]) -> list[dict[str, float]]:
    """The smoothed loss at each rate of a sweep, the mean of its repeats, over the rate's decimal logarithm."""
    losses: dict[float, list[float]] = {}
    for row in rows:
        losses.setdefault(float(row["lr"]), []).append(float(row["smoothed_loss"] or "nan"))
    means = ({"log10_lr": math.log10(lr), "loss": sum(at) / len(at)} for lr, at in sorted(losses.items()))
    return _points(means, ("log10_lr", "loss"))


def _points(rows: Iterable[Mapping[str, float]], names: tuple[str, ...]) -> list[dict[str, float]]:
    """The `names` of each row. What is not finite is left out: neither JSON nor a plot can hold it."""
    points = ({name: row[name] for name in names} for row in rows)
    return [point for point in points if all(map(math.isfinite, point.values()))]


if __name__ == "__main__":
    leave(obeying("scores", main))
