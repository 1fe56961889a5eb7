"""Reading settings with every check: the schema's own, and those of sources of images, colours and MLflow's store."""

from pathlib import Path
from typing import Any

from PIL import ImageColor

from pipeline.data.sources import check_source
from pipeline.settings import Settings, SettingsError, read_settings, shown
from pipeline.tracking.spec import store_uri


def read_checked(values: dict[str, Any], *, source: str) -> Settings:
    """Check the nested dict `values` and return it as settings. Raises SettingsError, which names `source`."""
    settings = read_settings(values, source=source)
    try:
        check_source(settings.data)
        _check_colour(settings.data.background)
        store_uri(Path(), settings.runtime.tracking_uri)
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None
    return settings


def _check_colour(background: str) -> None:
    try:
        ImageColor.getrgb(background)
    except ValueError:
        raise SettingsError(
            f"data.background={shown(background)} is no colour: give a CSS name, such as white, or #rrggbb in quotes: "
            "'data.background=\"#ffffff\"'"
        ) from None
