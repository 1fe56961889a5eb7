"""Reading settings with every check: the schema's own, and those of the source of images."""

from typing import Any

from pipeline.data.sources import check_source
from pipeline.settings import Settings, SettingsError, read_settings


def read_checked(values: dict[str, Any], *, source: str) -> Settings:
    """Check the nested dict `values` and return it as settings. Raises SettingsError, which names `source`."""
    settings = read_settings(values, source=source)
    try:
        check_source(settings.data)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from None
    return settings
