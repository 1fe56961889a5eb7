"""Numbers that are none: NaN and infinity are no result, so nothing that holds them is written."""

import math
from collections.abc import Mapping, Sequence


class NumbersError(ValueError):
    """A number is NaN or infinite; the message says which, where it is from, and what to do."""


def check_numbers(value: object, *, of: str) -> None:
    """Raise NumbersError, which names the place, if a number within `value` (a JSON value) is NaN or infinite."""
    place = _find_broken(value)
    if place is not None:
        raise NumbersError(f"{of}: {place}: a number went wrong before this; nothing is written")


def _find_broken(value: object, place: str = "") -> str | None:
    """The place of the first NaN or infinity, as `valid.plain.log_loss is nan`."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{place.removeprefix('.') or 'the value'} is {value}"
    if isinstance(value, Mapping):
        parts = ((f"{place}.{key}", part) for key, part in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        parts = ((f"{place}[{i}]", part) for i, part in enumerate(value))
    else:
        return None
    return next((found for at, part in parts if (found := _find_broken(part, at)) is not None), None)
