"""Settings as nested dicts: read from `params.yaml`, written as YAML, and with dotted keys."""

from pathlib import Path
from typing import Any

from pipeline.yaml_file import read_mapping, to_yaml

__all__ = ["flatten", "load_params", "to_yaml"]


def load_params(path: Path) -> dict[str, Any]:
    """Read a YAML file as a nested dict. Raises SettingsError that names the file, and the line where there is one."""
    return read_mapping(path)


def flatten(values: dict[str, Any], *, separator: str = ".") -> dict[str, Any]:
    """`{"data": {"name": "digits"}}` to `{"data.name": "digits"}`; an empty dict is a value like any other."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= {f"{key}{separator}{k}": v for k, v in flatten(value, separator=separator).items()}
        else:
            flat[str(key)] = value
    return flat
