"""What a person typed on a command line, as `key=value`: read as it was meant, or refused with what to type instead."""

import difflib
import shlex
import typing
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import UnionType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep
from hydra.core.plugins import Plugins
from hydra.errors import HydraException

from pipeline.harness.guesses import instead_of_choice, instead_of_key
from pipeline.harness.quoting import quote_text
from pipeline.passwords import hide_passwords
from pipeline.paths import CONF
from pipeline.settings import Settings, SettingsError, all_keys, shown
from pipeline.yaml_file import read_mapping

BASES = ("held", "conf")
"""The choices of the group `base`, which has no folder: what the settings that are typed lie over."""

_UNREADABLE = (HydraException, ValueError, RecursionError)
"""What Hydra's parser raises for what its grammar does not hold."""
_LONGEST, _LONGEST_NAME, _LONGEST_ADVICE, _DEEPEST = 8192, 80, 300, 20
"""Characters of an override, a name and a command that is printed, and brackets within each other."""

_PACKAGES = {
    "joblib": "'unfreeze[joblib]'",
    "submitit_local": "'unfreeze[submitit]'",
    "submitit_slurm": "'unfreeze[submitit]'",
    "ray": "'hydra-ray-launcher<1.3' 'joblib<1.6'",
}
"""Launchers of Hydra that can be installed beside this project, and what holds them."""


def read_typed(arguments: Sequence[str], *, conf: Path = CONF, is_sweep: bool = False) -> list[str]:
    """Return overrides as Hydra reads them: text that its grammar refuses or takes for a number is put in quotes.

    `is_sweep`: whether a comma separates values. Raises SettingsError, with what to type instead, for what is no
    setting, no choice of a group, or cannot be read.
    """
    return [_read(argument, conf, is_sweep=is_sweep) for argument in arguments]


def check_quoted(arguments: Sequence[str], *, conf: Path = CONF) -> None:
    """Raise SettingsError as `read_typed` does, and for an override that lacks quotes which only the user can add."""
    for argument, meant in zip(arguments, read_typed(arguments, conf=conf, is_sweep=True), strict=True):
        if argument != meant:
            raise SettingsError(f"{argument}: this is text, but reads as something else; type `{shlex.quote(meant)}`")


def chosen(arguments: Sequence[str], *, conf: Path = CONF) -> set[str]:
    """The groups that `arguments` choose, by name or through the experiments that they name."""
    groups = set[str]()
    for override in map(_parse, arguments):
        if override.key_or_group in group_names(conf):
            groups.add(override.key_or_group)
        if override.key_or_group == "experiment":
            for name in _names(override):
                groups |= _overridden(conf / "experiment" / f"{name}.yaml")
    return groups


def names_base(arguments: Sequence[str]) -> str:
    """The base that `arguments` name."""
    named = [
        name for override in map(_parse, arguments) if override.key_or_group == "base" for name in _names(override)
    ]
    return named[-1] if named else BASES[0]


def group_names(conf: Path = CONF) -> set[str]:
    """The groups of `conf`, and `base`."""
    return {"base", *(folder.name for folder in conf.iterdir() if folder.is_dir())}


def _read(argument: str, conf: Path, *, is_sweep: bool) -> str:
    key, sign, value = argument.partition("=")
    _check_characters(argument)
    if key.startswith("hydra.") or key.startswith("hydra/") or key == "hydra":
        _check_plugin(key, value)
        return argument
    if key[:1] in ("+", "~"):
        raise _unknown(argument, conf) if (bare := key.lstrip("+~")) not in all_keys() else SettingsError(
            f"{shown(argument)}: settings cannot be added or removed, only changed; write {bare}=..."
        )  # fmt: skip
    if key not in {*all_keys(), *group_names(conf)}:
        raise _unknown(argument, conf)
    if not sign:
        raise SettingsError(f"{shown(argument)} has no value: write {shown(argument)}=...")
    meant = _as_meant(key, value, is_sweep=is_sweep) if _is_text(key) else argument
    if key in group_names(conf):
        _check_choice(key, value, conf)
    else:
        _parse(meant)
    return meant


def _check_characters(argument: str) -> None:
    """Refuse what Hydra's parser would take minutes or all of Python's stack for, and what is stored as a password."""
    if len(argument) > _LONGEST:
        raise SettingsError(f"{shown(argument)}: this is too long for a setting")
    if max(accumulate((character in "[{(") - (character in ")}]") for character in argument), default=0) > _DEEPEST:
        raise SettingsError(f"{shown(argument)}: more than {_DEEPEST} brackets lie in each other")
    if any(character < " " or character == "\x7f" for character in argument):
        raise SettingsError(f"{shown(argument)}: this holds a control character, as no setting does")
    if any("\ud800" <= character <= "\udfff" for character in argument):
        raise SettingsError(f"{shown(argument)}: this is not UTF-8; a name that is not must be changed")
    if hide_passwords(argument) != argument:
        raise SettingsError(
            f"{shown(hide_passwords(argument))}: settings are stored, and may be committed, so they hold no password; "
            "put MLflow's address into UNFREEZE_TRACKING_URI or MLFLOW_TRACKING_URI in the environment"
        )


def _as_meant(key: str, value: str, *, is_sweep: bool) -> str:
    """`key=value` for a setting that holds text, with quotes where Hydra would read anything else."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={value}")
    except _UNREADABLE:
        return f"{key}={','.join(map(quote_text, value.split(',')))}" if is_sweep else f"{key}={quote_text(value)}"
    read = override.value()
    if override.is_sweep_override():
        return f"{key}={value}" if is_sweep else f"{key}={quote_text(value)}"
    return f"{key}={value}" if read is None or isinstance(read, str) else f"{key}={quote_text(value)}"


def _parse(argument: str) -> Override:
    try:
        return OverridesParser.create().parse_override(argument)
    except _UNREADABLE as error:
        key, _, value = argument.partition("=")
        quoted = shlex.quote(f"{key}={quote_text(value)}")
        advice = f"; if it is text, type `{quoted}`" if len(quoted) <= _LONGEST_ADVICE else ""
        reason = shown(str(error).splitlines()[0])
        raise SettingsError(f"{shown(argument)} cannot be read ({reason}){advice}") from None


def _unknown(argument: str, conf: Path) -> SettingsError:
    key, _, value = argument.partition("=")
    key = key.lstrip("+~")
    near = difflib.get_close_matches(key[:_LONGEST_NAME], group_names(conf), n=1, cutoff=0.75)
    instead = f"nearest: {near[0]}" if near else instead_of_key(key, value)
    return SettingsError(f"{shown(argument)}: {shown(key)} is not a setting; {instead}")


def _check_choice(group: str, value: str, conf: Path) -> None:
    choices = list(BASES) if group == "base" else sorted(file.stem for file in (conf / group).glob("*.yaml"))
    try:
        names = [*_names(_parse(f"{group}={value}"))]
    except SettingsError:
        names = [value]
    for name in (name for name in names if name not in choices):
        if name == "None" and group in ("experiment", "sweep", "launch"):
            continue
        instead = instead_of_choice(group, "none" if name == "None" else name, choices)
        raise SettingsError(f"{group}={shown(value)}: {instead} (choices: {', '.join(choices)})")
    if group == "launch":
        for name in (name for name in names if name in choices):
            _check_plugin("hydra/launcher", name)


def _names(override: Override) -> Iterator[str]:
    """The names that a choice of a group, a list of them or a sweep over them has."""
    value: Any = override.value()
    if isinstance(value, Sweep):
        value = list(override.sweep_iterator())
    for name in value if isinstance(value, list) else [value]:
        yield from map(str, name) if isinstance(name, list) else [str(getattr(name, "text", name))]


def _overridden(file: Path) -> set[str]:
    """The groups that a file of an experiment chooses."""
    if not file.is_file():
        return set()
    entries = read_mapping(file).get("defaults")
    keys = [str(key) for entry in entries or [] if isinstance(entry, dict) for key in entry]
    return {key.removeprefix("override ").strip("/ ") for key in keys if key.startswith("override ")}


def _check_plugin(key: str, name: str) -> None:
    if key not in ("hydra/sweeper", "hydra/launcher"):
        return
    Plugins.instance()  # plugins add their choices to the store when they are loaded
    installed = [choice.removesuffix(".yaml") for choice in ConfigStore.instance().list(key)]
    if name in installed:
        return
    package = _PACKAGES.get(name)
    hint = f"`python -m pip install {package}` adds it" if package else f"installed: {', '.join(installed)}"
    if name == "optuna":
        hint = "`hydra/sweeper=search` is the search with Optuna"
    raise SettingsError(f"{key}={name} is a plugin of Hydra that is not installed; {hint}")


def is_integer(key: str) -> bool:
    """Whether the numbers that the setting may be are whole."""
    kinds = _kinds(key)
    return int in kinds and float not in kinds


def _is_text(key: str) -> bool:
    """Whether the setting holds free text (not one of a few words), or text or null."""
    return str in _kinds(key)


def _kinds(key: str) -> list[Any]:
    """The types that a setting may have; none for what is no setting."""
    kind: Any = Settings
    for part in key.split("."):
        hints = typing.get_type_hints(kind) if isinstance(kind, type) else {}
        if part not in hints:
            return []
        kind = hints[part]
    is_union = isinstance(kind, UnionType) or typing.get_origin(kind) is typing.Union
    return list(typing.get_args(kind)) if is_union else [kind]
