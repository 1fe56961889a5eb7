"""Small finished runs, as the stages would leave them: just enough to compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.manifest import Sample, write_manifest
from pipeline.files import digest, read_json, write_csv, write_json, write_text
from pipeline.params import to_yaml
from pipeline.timings import Span, write_timings

CLASSES = ["ant", "bee"]
SETTINGS = {"seed": 0, "full_train.lr": 0.1, "full_train.cycle_len": 1, "runtime.workers": 2}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the list of 40 images of valid and 40 of test, half of them ants."""
    write_ingest(tmp_path / "artifacts" / "ingest")
    (tmp_path / ".unfreeze").mkdir()
    return tmp_path


def write_ingest(folder: Path) -> None:
    folder.mkdir(parents=True)
    samples = [sample(f"{split}/{i}.png", i, split) for split in ("valid", "test") for i in range(40)]
    write_manifest(folder, samples, CLASSES, root=None)
    write_record(folder, {"data.background": "white"}, digest_of=["ingest"])


def sample(path: str, i: int, split: str, *, label: str | None = None) -> Sample:
    return Sample(path, label or CLASSES[i % 2], split, "", f"f{i}", f"p{i}", 8, 8)


def write_job(
    checkout: Path,
    name: str,
    *,
    settings: dict[str, Any] | None = None,
    losses: Sequence[float] = (0.5,) * 40,
    wrong: Sequence[int] = (),
    kept: Sequence[int] = (1,),
    seconds: float = 10.0,
    test_wrong: Sequence[int] | None = None,
) -> Path:
    """Write a job below `runs/sweep/`: its losses on valid, the images that it gets wrong, and those of test."""
    job = checkout / "runs" / "sweep" / name
    folder = job / "full_train"
    folder.mkdir(parents=True)
    write_text(job / "params.yaml", to_yaml(_nested(SETTINGS | (settings or {}))))
    header = ["target", "predicted", "loss", "predicted_before", "loss_before"]
    guesses = [(i % 2 + (i in wrong)) % 2 for i in range(40)]
    write_csv(folder / "valid.csv", [header, *([i % 2, guesses[i], losses[i], i % 2, 0.6] for i in range(40))])
    mean = sum(losses) / 40
    scores = {"lr": 0.1, "epochs": 2, "valid_loss": mean, "valid_accuracy": 1 - len(wrong) / 40}
    write_json(folder / "metrics.json", scores)
    ends = [{"cycle": i, "valid_loss": mean, "valid_accuracy": 0.5} for i in range(2)]
    write_json(folder / "cycles.json", {"ends": ends, "kept": {"cycles": [*kept], "snapshots": "best"}})
    write_record(folder, {}, digest_of=[name], inputs={"ingest": checkout / "artifacts" / "ingest"})
    write_timings(checkout / ".unfreeze", digest([name]), {"seconds": seconds}, Span(0.0, seconds))
    if test_wrong is not None:
        write_evaluation(job / "tta_evaluate", test_wrong, name)
    return job


def write_evaluation(folder: Path, wrong: Sequence[int], name: str) -> None:
    folder.mkdir()
    rows: list[list[object]] = [["split", "path", "label", "predicted", "p", "loss"]]
    for i in range(40):
        answer = CLASSES[(i % 2 + (i in wrong)) % 2]
        rows.append(["test", f"test/{i}.png", CLASSES[i % 2], answer, 0.8, 1.6 if i in wrong else 0.2])
    write_csv(folder / "answers.csv", rows)
    share = 1 - len(wrong) / 40
    scores = {"accuracy": share, "accuracy_low": share - 0.1, "accuracy_high": min(1.0, share + 0.1)}
    split = {"num_images": 40, "num_views": 0.0, "plain": scores, "tta": scores}
    write_json(folder / "metrics.json", {"valid": split, "test": split, "chosen": "plain"})
    write_record(folder, {}, digest_of=["tta", name])


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        (values.setdefault(section, {}) if section else values)[name] = value
    return values


def write_record(
    folder: Path, settings: dict[str, Any], *, digest_of: list[str], inputs: dict[str, Path] | None = None
) -> None:
    read = [
        {"stage": name, "file": None, "digest": read_json(path / "stage.json")["digest"]}
        for name, path in (inputs or {}).items()
    ]
    write_json(folder / "stage.json", {"settings": settings, "inputs": read, "digest": digest(digest_of)})
