"""Reading YAML that anybody may have written: one error that names file and line, in bounded time and memory.

YAML can do far more than hold settings: tags that make objects, aliases that multiply, keys that are said twice. What
settings do not need is refused before a value is built.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from pipeline.settings import SettingsError

_LARGEST = 1_000_000
"""Bytes of a file of settings; ours has 3,000."""
_DEEPEST = 20
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")} | {"!"}
"""Tags that say what is there anyway."""


class _Loader(_Base):  # type: ignore[misc]
    """Reads as Hydra does: 1e3 is a number, and a date is text."""


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes where any reader, of YAML 1.1 or 1.2, would take it for something else."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _OCTAL, ["0"])


def to_yaml(values: dict[str, Any]) -> str:
    """The one way in which settings are written."""
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file as a nested dict, as Hydra reads it, but `${...}` as it is; an empty file is an empty dict.

    Raises SettingsError that names the file and, where there is one, the line.
    """
    text = read_plain_text(path)
    check_yaml(text, path)
    try:
        values = yaml.load(text, Loader=_Loader) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{path} holds a value that cannot be read: {' '.join(str(error).split())[:100]}") from None
    return {str(key): value for key, value in values.items()}


def check_folder(folder: Path) -> None:
    """Check every YAML file below `folder`. Raises SettingsError."""
    for file in sorted(folder.rglob("*.yaml")):
        read_mapping(file)


def read_plain_text(path: Path) -> str:
    """Read a small file in UTF-8. Raises SettingsError that names the file."""
    try:
        if not path.is_file():
            raise SettingsError(f"{path} is no file")
        if (size := path.stat().st_size) > _LARGEST:
            raise SettingsError(f"{path} has {size:,} bytes, too many for settings")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}, line {line}: this is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None


def check_yaml(text: str, path: Path) -> None:
    """Raise SettingsError, with the line, unless `text` is one mapping, or nothing, of plain values."""
    try:
        _check_events(yaml.parse(text, Loader=_Base), path)
        root = yaml.compose(text, Loader=_Base)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "this is no YAML"
        _refuse(path, mark, f"{said}; YAML is indented by spaces" if "\\t" in said or _has_tab(text, mark) else said)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise SettingsError(f"{path}, line {line}: a control character (#x{ord(str(error.character)):02x})") from None
    if root is not None and not isinstance(root, yaml.MappingNode):
        if not (isinstance(root, yaml.ScalarNode) and not root.value):
            _refuse(path, root.start_mark, "`key: value` is expected here, and not a list or a word")
    elif root is not None:
        _check_keys(root, path)


def _check_events(events: Iterator[Any], path: Path) -> None:
    depth = documents = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            _refuse(path, event.start_mark, f"aliases (*{event.anchor}) are not read here: write the value out")
        if (tag := getattr(event, "tag", None)) is not None and tag not in _PLAIN:
            _refuse(path, event.start_mark, f"tags ({tag}) are not read here: write a plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > _DEEPEST:
            _refuse(path, event.start_mark, f"more than {_DEEPEST} sections or lists lie in each other")
        if documents > 1:
            _refuse(path, event.start_mark, "a second document begins (---): a file holds one")


def _check_keys(node: yaml.Node, path: Path) -> None:
    """Refuse keys that are said twice: which of them counts is not the same everywhere."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, path)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            _refuse(path, key.start_mark, "a key is a word, and not a list or a section")
        if key.value in lines:
            _refuse(path, key.start_mark, f"{key.value} is given a second time; first in line {lines[key.value]}")
        lines[key.value] = key.start_mark.line + 1
        _check_keys(value, path)


def _has_tab(text: str, mark: Any) -> bool:
    lines = text.splitlines()
    return mark is not None and mark.line < len(lines) and "\t" in lines[mark.line]


def _refuse(path: Path, mark: Any, what: str) -> NoReturn:
    raise SettingsError(f"{path}{f', line {mark.line + 1}' if mark is not None else ''}: {what[:300]}") from None
