"""The settings of pretraining: values are in `params.yaml`, meanings in the dataclasses."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import yaml

FOLDER = Path(__file__).resolve().parent
PARAMS = FOLDER / "params.yaml"
ATLAS = FOLDER / "atlas"
WEIGHTS = FOLDER / "weights"
SCRATCH = FOLDER / ".scratch"

Settings = TypeVar("Settings")


def load_settings(kind: type[Settings], section: str, *, path: Path = PARAMS) -> Settings:
    """Read a section of `path` into the dataclass `kind`. Raises ValueError for missing or unknown keys."""
    values: dict[str, Any] = yaml.safe_load(path.read_text())[section]
    wanted = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if wanted != set(values):
        missing, unknown = sorted(wanted - set(values)), sorted(set(values) - wanted)
        raise ValueError(f"{path.name}, section {section}: missing {missing}, unknown {unknown}")
    return kind(**values)
