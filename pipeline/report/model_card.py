"""`MODEL_CARD.md`: what a model is for, what it was made from, how well it does, where it ends, and how to use it.

It names no path of the machine: the card travels with the model.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.files import read_json, write_text
from pipeline.report.first_screen import data_name
from pipeline.report.text import counted

NAME = "MODEL_CARD.md"
_MODEL = "artifacts/tta_evaluate/model"
_SHOWN_CLASSES = 50
_FEW_TEST_IMAGES, _FEW_TRAIN_IMAGES = 100, 20
_MODES = {"plain": "plain", "tta": "with TTA"}
_LICENCES = {
    "glyphs": "Apache-2.0, see `pretraining/LICENSE-WEIGHTS.md`",
    "imagenet": "that of torchvision's weights, see their page there, and the terms of ImageNet",
    "none": "there are none, training began from random weights",
}
_MARKED = re.compile(r"([\\`*_{}\[\]<>|#])")

Folders = Mapping[str, Path]


def write_model_card(path: Path, folders: Folders) -> None:
    """Write the card from what the stages left in `folders`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    facts = _purpose(folders) | _data(folders) | _making(folders) | _results(folders)
    write_text(path, environment.get_template("model_card.j2").render(facts, model=_MODEL))


def _purpose(folders: Folders) -> dict[str, Any]:
    classes = _read(folders, "ingest", "classes.json")
    names = ", ".join(f"**{_plain(name)}**" for name in classes[:_SHOWN_CLASSES])
    more = f", and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
    return {"num_classes": len(classes), "names": names + more}


def _data(folders: Folders) -> dict[str, Any]:
    counts, classes = _read(folders, "ingest", "class_counts.json"), _read(folders, "ingest", "classes.json")
    record = _read(folders, "ingest", "stage.json")
    splits = [split for split in ("train", "valid", "test") if split in counts]
    rows = [[_plain(name), *(counts[s].get(name, 0) for s in splits)] for name in classes[:_SHOWN_CLASSES]]
    total = ["all", *(sum(counts[s].values()) for s in splits)]
    return {
        "data": _plain(data_name(record["settings"])),
        "digest": record["digest"][:12],
        "splits": splits,
        "counts": [*rows, total],
    }


def _making(folders: Folders) -> dict[str, Any]:
    card, metrics = _read(folders, "full_train", "model.json"), _read(folders, "full_train", "metrics.json")
    record, settings = (
        _read(folders, "full_train", "stage.json"),
        _read(folders, "precompute", "stage.json")["settings"],
    )
    weights = str(settings["model.weights"])
    return {
        "arch": _plain(card["arch"]),
        "card": card,
        "settings": settings,
        "weights": Path(weights).name,
        "licence": card.get("licence") or _LICENCES.get(weights, "not known here, ask where the file came from"),
        "epochs": counted(metrics["epochs"], "epoch"),
        "lr": f"{metrics['lr']:.3g}",
        "kept": f"cycle {metrics['kept_cycle']}" if metrics["kept_cycle"] else "the state before that",
        "environment": record["environment"],
        "told": ", ".join(f"`{key}={json.dumps(value)}`" for key, value in record["settings"].items()),
    }


def _results(folders: Folders) -> dict[str, Any]:
    metrics = _read(folders, "tta_evaluate", "metrics.json")
    splits = [split for split in ("test", "valid") if split in metrics]
    return {
        "scores": [_score_row(metrics[split], split, mode) for split in splits for mode in _MODES],
        "calibration": [_calibration_line(metrics["calibration"][mode], name) for mode, name in _MODES.items()],
        "limits": list(_limits(folders, splits[0], metrics[splits[0]]["num_images"])),
    }


def _score_row(scores: Mapping[str, Any], split: str, mode: str) -> list[Any]:
    s = scores[mode]
    interval = f"{s['accuracy_low']:.1%} to {s['accuracy_high']:.1%}"
    numbers = [f"{s[name]:.4f}" for name in ("log_loss", "calibration_error", "macro_f1")]
    return [f"{split}, {_MODES[mode]}", scores["num_images"], f"{s['accuracy']:.1%}", interval, *numbers]


def _calibration_line(known: Mapping[str, Any], name: str) -> str:
    parts = [f"Calibrated probabilities, {name}: temperature {known['temperature']:.3f}"]
    if test := known.get("test"):
        parts += [
            f"on test a log loss of {test['log_loss_after']:.4f} instead of {test['log_loss_before']:.4f}",
            f"calibration error {test['calibration_error_after']:.4f}",
        ]
        for share in (90, 95):
            if sets := test.get(f"sets_{share}"):
                interval = f"{sets['coverage_low']:.1%} to {sets['coverage_high']:.1%}"
                parts.append(f"sets for {share} % hold the true class of {sets['coverage']:.1%} ({interval})")
    return "; ".join(parts) + "."


def _limits(folders: Folders, split: str, number: int) -> Iterator[str]:
    train = _read(folders, "ingest", "class_counts.json")["train"]
    few = [name for name in _read(folders, "ingest", "classes.json") if train.get(name, 0) < _FEW_TRAIN_IMAGES]
    if split == "valid":
        yield "There were no test images: the model was chosen on the images that it is scored on."
    if number < _FEW_TEST_IMAGES:
        yield f"{counted(number, f'{split} image')} are few: mind the intervals."
    if few:
        yield f"Fewer than {_FEW_TRAIN_IMAGES} training images: {', '.join(map(_plain, few[:_SHOWN_CLASSES]))}."


def _read(folders: Folders, stage: str, name: str) -> Any:
    return read_json(folders[stage] / name)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKED.sub(r"\\\1", " ".join(text.split()))
