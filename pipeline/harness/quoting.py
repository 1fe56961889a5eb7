"""Settings as text that can be pasted: into Hydra's grammar, and from there into a shell."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z_/][\w./+-]*", re.ASCII)
"""Text that Hydra reads as itself, unless it is one of `_WORDS`."""
_WORDS = {"null", "true", "false", "nan", "inf"}


def quote_text(text: str) -> str:
    """`text` as a string of Hydra's grammar, in double quotes where it has none itself."""
    mark = "'" if '"' in text and "'" not in text else '"'
    escaped = re.sub(rf"(\\*){mark}", lambda found: found[1] * 2 + "\\" + mark, text)
    last = len(escaped) - len(escaped.rstrip("\\"))
    return mark + escaped.replace("${", r"\${") + "\\" * last + mark


def hydra_value(value: object) -> str:
    """A setting's value as Hydra's grammar writes it."""
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) and value.lower() not in _WORDS else quote_text(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{k}:{hydra_value(v)}' for k, v in value.items())}}}"
    return json.dumps(value)


def typed(overrides: Mapping[str, Any], *, flag: str = "") -> str:
    """`overrides` as a person types them into a shell, each behind `flag`."""
    words = (shlex.quote(f"{key}={hydra_value(value)}") for key, value in overrides.items())
    return " ".join(f"{flag} {word}".strip() for word in words)
