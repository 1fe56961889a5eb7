"""Settings as nested dicts: read from `params.yaml`, written as YAML, and with dotted keys."""

from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.settings import SettingsError


def load_params(path: Path) -> dict[str, Any]:
    """Read a YAML file as a nested dict. Raises SettingsError that names the file."""
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} does not hold settings")
    return cast(dict[str, Any], values)


def to_yaml(values: dict[str, Any]) -> str:
    """The one way in which settings are written."""
    return OmegaConf.to_yaml(OmegaConf.create(values))


def flatten(values: dict[str, Any], *, separator: str = ".") -> dict[str, Any]:
    """`{"data": {"name": "digits"}}` to `{"data.name": "digits"}`; an empty dict is a value like any other."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= {f"{key}{separator}{k}": v for k, v in flatten(value, separator=separator).items()}
        else:
            flat[str(key)] = value
    return flat
