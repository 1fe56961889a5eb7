"""How long the stages took. Durations are no part of a result, so they stand outside the stages' folders."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.files import read_json, write_json


def write_timings(state: Path, folder_digest: str, timings: Mapping[str, float]) -> None:
    """Keep the durations that were measured when a folder of this digest was made."""
    file = _file(state, folder_digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {name: round(value, 2) for name, value in timings.items()})


def read_timings(state: Path, folder_digest: str) -> dict[str, float]:
    """The durations that were measured when a folder of this digest was made; empty where they are not known."""
    file = _file(state, folder_digest)
    timings: dict[str, float] = read_json(file) if file.exists() else {}
    return timings


def _file(state: Path, folder_digest: str) -> Path:
    return state / "timings" / f"{folder_digest}.json"
