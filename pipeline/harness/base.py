"""What the settings that a person types lie over: those that an experiment left behind, or `conf/` alone.

A run by `dvc exp run` leaves its settings in `params.yaml` and `overrides.json`: they are held. The next run of any
kind starts from them, and what was typed lies over them. A group that is typed (`model=imagenet`, also within an
experiment) replaces all held values of that group. `base=conf` starts from `conf/` alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.files import file_digest
from pipeline.params import flatten, load_params
from pipeline.paths import HELD, PARAMS
from pipeline.settings import SettingsError
from pipeline.yaml_file import read_plain_text

LEAVE = "base=conf"
"""What to type to start from `conf/`."""


@dataclass(frozen=True)
class Record:
    """What `overrides.json` holds."""

    overrides: dict[str, Any] = field(default_factory=dict)
    """The settings, flat, in which `params.yaml` differs from `conf/`."""
    conf: str | None = None
    """Digest of the files in `conf/`."""
    params: str | None = None
    """Digest of `params.yaml`."""


def read_record(checkout: Path = Path()) -> Record:
    """What the stage `config` noted last; nothing held where there is no file.

    Raises SettingsError that names the file if it is damaged.
    """
    file = checkout / HELD
    if not file.exists():
        return Record()
    text = read_plain_text(file)
    try:
        return TypeAdapter(Record).validate_json(text)
    except ValueError as error:
        reason = str(error).splitlines()[-2].strip() if isinstance(error, ValidationError) else str(error)
        raise SettingsError(
            f"{file} is damaged ({reason[:120]}): `git checkout {HELD} {PARAMS}` takes the last ones committed, "
            f"`rm {HELD} {PARAMS}` starts from conf/"
        ) from None


def read_held(checkout: Path = Path()) -> dict[str, Any]:
    """The settings, flat, in which the last experiment in `checkout` differs from `conf/`; empty if none is held.

    Raises SettingsError if `params.yaml` was edited by hand since. Without its header it was composed by DVC for a run
    that failed before its settings were settled: nothing of that is held.
    """
    record = read_record(checkout)
    held = record.overrides
    if (
        record.params is not None
        and was_changed(record, checkout)
        and (checkout / PARAMS).read_text(encoding="utf-8").startswith("#")
    ):
        what = f"while it holds an experiment ({listed(held)})" if held else "since it was made from conf/"
        undo = f"`git checkout {PARAMS}` or `dvc exp apply`" if held else f"`rm {PARAMS}`"
        raise SettingsError(
            f"{PARAMS} was changed by hand {what}: undo it with {undo}, and set values in conf/ or with `dvc exp run "
            "-S key=value`"
        )
    return held


def was_changed(record: Record, checkout: Path = Path()) -> bool:
    """Whether `params.yaml` is another than when `record` was written."""
    file = checkout / PARAMS
    return file.exists() and record.params != file_digest(file)


def beneath(held: Mapping[str, Any], groups: Collection[str]) -> dict[str, Any]:
    """The part of `held` that stays where `groups` are typed."""
    return {key: value for key, value in held.items() if key.partition(".")[0] not in groups}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `flatten`."""
    values: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return values


def describe(checkout: Path = Path(), *, held: bool) -> str:
    """Name the base in a few words: `held settings (photos, squeezenet1_1, 224 px)`."""
    name = "held settings" if held else "conf/"
    record = read_record(checkout)
    if bool(record.overrides) != held or not (checkout / PARAMS).exists():
        return name
    values = flatten(load_params(checkout / PARAMS))
    source = values.get("data.dataset") or Path(values.get("data.root") or "").name or values.get("data.name")
    return f"{name} ({source}, {values.get('model.arch')}, {values.get('data.image_size')} px)"


def listed(overrides: Mapping[str, Any], most: int = 6) -> str:
    """`key=value` of the first `most` overrides, and how many more there are."""
    words = [f"{key}={value}" for key, value in overrides.items()]
    more = f" and {len(words) - most} more in {HELD}" if len(words) > most else ""
    return ", ".join(words[:most]) + more
