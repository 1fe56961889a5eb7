"""What a row in a table of runs is called, says of itself, and was made from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import read_json
from pipeline.report import sentences
from pipeline.report.advice import advise
from pipeline.report.headline import Scores
from pipeline.report.text import counted

Folders = Mapping[str, Path]
Params = Mapping[str, Any]

SEPARATOR = " · "
SHOWN_CHANGES = 3
"""In a name, a few changes tell rows apart; the others are counted."""
IDENTITY = ("data.name", "data.root", "data.dataset", "data.group", "model.arch", "model.weights")
"""Settings that a row's name says in words."""
FOLLOWS = ("data.", "model.", "augment.", "tta_evaluate.")
"""Sections that follow from the choice of other images: `experiment=photos` sets them together."""


def data_label(params: Params) -> str:
    """Return what people call these images: the name of their folder or table, or of the data set."""
    data = params["data"]
    if data["name"] in ("folder", "csv") and data["root"]:
        root = Path(data["root"])
        return root.stem if root.suffix else root.name
    return str(data["dataset"] or data["name"])


def base_label(params: Params) -> str:
    """Return what a run is about: `photos · squeezenet1_1`."""
    return f"{data_label(params)}{SEPARATOR}{params['model']['arch']}"


def run_name(params: Params, changed: Sequence[str], scores: Scores) -> str:
    """Name a run of the whole pipeline: images and model, what else was `changed` (`key=value`), and the score."""
    other_data = any(change.startswith("data.name=") for change in changed)
    dropped = IDENTITY + (FOLLOWS if other_data else ())
    what = [c for c in changed if not c.startswith(dropped)]
    return _joined(base_label(params), short_changes(what), score(scores))


def job_name(params: Params, changed: Sequence[str], scores: Scores) -> str:
    """Name a job that was run by hand: what was `changed` for it (`key=value`), and the score."""
    what = [c for c in changed if not c.startswith("experiment=")] or changed
    return _joined(short_changes(what) or base_label(params), score(scores))


def short_changes(changed: Sequence[str]) -> str:
    """Shorten `key=value` to what tells rows apart: `cycle_len=2 mult=1`."""
    pairs = [change.partition("=") for change in changed if not change.startswith(("runtime.", "hydra."))]
    last = Counter(key.rpartition(".")[2] for key, _, _ in pairs)
    texts, before = [], ""
    for key, _, value in pairs[:SHOWN_CHANGES]:
        name = key.rpartition(".")[2]
        shown = key if last[name] > 1 else name
        first, _, rest = name.partition("_")
        if key == "experiment":
            texts.append(value)
            continue
        if shown == name and rest and first == before:
            shown = rest
        before = first
        texts.append(f"{shown}={value}")
    more = len(pairs) - SHOWN_CHANGES
    return " ".join([*texts, *([f"+{more}"] if more > 0 else [])])


def score(scores: Scores) -> str:
    """Return the score that a row is known by: on test images, or where those were not predicted, on validation."""
    if "accuracy" in scores:
        return percent(scores["accuracy"])
    return f"valid {percent(scores['valid_accuracy'])}" if "valid_accuracy" in scores else ""


def percent(share: float) -> str:
    """Write a share as `91.2 %`."""
    return f"{100 * share:.1f} %"


def describe(params: Params, folders: Folders, changed: Sequence[str], scores: Scores) -> list[str]:
    """Describe a run in five lines of Markdown: score, images, model, changes, verdict."""
    lines = {
        "Score": _score(scores, folders),
        "Images": _images(params, folders),
        "Model": _model(params, folders, scores),
        "Changed": ", ".join(f"`{change}`" for change in changed) or "nothing: the settings are those of `conf/`",
        "Verdict": " ".join(_verdict(folders)) or "none yet: this run did not train the whole model",
    }
    return [f"**{name}**: {text}" for name, text in lines.items()]


def _score(scores: Scores, folders: Folders) -> str:
    if "accuracy" in scores:
        images = _metrics(folders, "tta_evaluate")["test"]["num_images"]
        span = f"95 %: {percent(scores['accuracy_low'])} to {percent(scores['accuracy_high'])}"
        tta = percent(scores["accuracy_tta"])
        return f"{percent(scores['accuracy'])} of {counted(images, 'test image')} ({span}); {tta} with TTA"
    if "valid_accuracy" in scores:
        loss = scores["valid_loss"]
        return f"{percent(scores['valid_accuracy'])} of the validation images (loss {loss:.4f}); no test image was used"
    return "none: no model was trained"


def _images(params: Params, folders: Folders) -> str:
    counts = image_counts(folders)
    if not counts:
        return data_label(params)
    splits = ", ".join(f"{counts[split]:,} {split}" for split in ("train", "valid", "test") if counts.get(split))
    return f"{data_label(params)}: {counts['classes']} classes; {splits}"


def _model(params: Params, folders: Folders, scores: Scores) -> str:
    model, data = params["model"], params["data"]
    text = f"{model['arch']} ({model['weights']}) at {data['image_size']} px"
    rates = [f"{name} {scores[key]:.3g}" for key, name in (("lr_head", "head"), ("lr_full", "all")) if key in scores]
    text += f"; learning rates: {', '.join(rates)}" if rates else ""
    if "full_train" in folders:
        kept = sentences.kept_model(read_json(folders["full_train"] / "cycles.json")["kept"])
        text += f"; kept after {counted(scores['epochs_run'], 'epoch')}: {kept}"
    return text


def _verdict(folders: Folders) -> list[str]:
    if "full_train" not in folders:
        return []
    found = sentences.overfitting(read_json(folders["full_train"] / "cycles.json"), stage="full_train")
    return [found, *advise(folders)[:1]]


def image_counts(folders: Folders) -> dict[str, int]:
    """Return the numbers of images, of classes, and of images per split; empty where nothing was ingested."""
    metrics = _metrics(folders, "ingest")
    if not metrics:
        return {}
    splits = {split: int(count) for split, count in metrics["images"].items()}
    return {"images": sum(splits.values()), "classes": int(metrics["classes"]), **splits}


def num_parameters(folders: Folders) -> int | None:
    """Return the size of the whole model; None before it was assembled."""
    sizes = _metrics(folders, "unfreeze").get("num_parameters")
    return sum(sizes.values()) if sizes else None


def _metrics(folders: Folders, stage: str) -> dict[str, Any]:
    file = folders[stage] / "metrics.json" if stage in folders else None
    return dict(read_json(file)) if file is not None and file.exists() else {}


def _joined(*parts: str) -> str:
    return SEPARATOR.join(part for part in parts if part)
