"""Every setting times odd values, in a file and typed: refused in one line that names both, or accepted and sane.

`TORTURE=1` composes every typed pair with Hydra, which takes minutes; otherwise a third of all pairs are tried.
"""

import math
import os
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.harness.base import nest
from pipeline.harness.checked import read_checked
from pipeline.harness.compose import compose
from pipeline.harness.typed import read_typed
from pipeline.params import flatten, load_params, to_yaml
from pipeline.settings import SettingsError, shown
from tests.conftest import PROJECT, Compose, put

IS_LONG = bool(os.environ.get("TORTURE"))
CONF = PROJECT / "conf"
SECRET = "hunter22"

VALUES: dict[str, Any] = {
    "null": None,
    "empty": "",
    "blank": " ",
    "zero": 0,
    "negative": -1,
    "negative zero": -0.0,
    "tiny": 1e-320,
    "huge": 1e308,
    "nan": math.nan,
    "inf": math.inf,
    "minus inf": -math.inf,
    "whole and huge": 10**30,
    "too many digits": 10**5000,
    "true": True,
    "list": [1],
    "empty list": [],
    "nested list": [[1]],
    "deep list": nest({".".join("a" * 50): [1]}),
    "section": {"a": 1},
    "unicode": "фото",
    "escape": "\x1b[31m",
    "nul": "a\x00b",
    "two lines": "a\nb",
    "surrogate": "\udce9",
    "long": "x" * 100_000,
    "path": "/etc/passwd",
    "interpolation": "${oops}",
    "broken interpolation": "${.}",
    "missing": "???",
    "wrong word": "zom",
    "number as text": "1",
    "octal": "0o17",
    "date": date(2024, 1, 1),
    "bytes": b"\xff",
    "set": {1},
    "device": "0",
    "password": f"http://user:{SECRET}@host/x",
}
TYPED = [
    "null", "''", "", " ", "0", "-1", "-0.0", "1e-320", "1e308", "nan", "inf", "-inf", "1" + 30 * "0", "9" * 5000,
    "true", "[1]", "[]", "[[1]]", "[" * 5000, "{a:1}", "фото", "\x1b[31m", "a\x00b", "a\nb", "\udce9", "x" * 100_000,
    "/etc/passwd", "${oops}", "${.}", "???", "zom", "'1'", "0o17", "2024-01-01", "1,2", "choice(1,2)", "f(x)", "=", "'",
    f"http://user:{SECRET}@host/x",
]  # fmt: skip


def pairs(values: int, leaves: list[str]) -> Iterator[tuple[str, int]]:
    """The pairs that are tried: all of them, or a third that holds every leaf and every value."""
    number = count()
    return ((leaf, v) for leaf in leaves for v in range(values) if IS_LONG or next(number) % 3 == 0)


def refusal(read: Callable[[], Any]) -> str | None:
    """What is said where a value is refused; None where it is accepted. Any other error ends the test."""
    try:
        read()
    except SettingsError as error:
        return str(error)
    return None


def check_refusal(said: str, key: str) -> None:
    assert key in said
    assert said.isprintable(), "more than one line, or what a terminal obeys"
    assert len(said) < 700
    assert SECRET not in said


def check_accepted(value: Any) -> None:
    if isinstance(value, str):
        assert value.strip()
        assert value.isprintable()
        assert len(value) <= 4096
        assert SECRET not in value
    elif isinstance(value, float):
        assert math.isfinite(value)
        assert abs(value) <= 1e7
    elif not isinstance(value, list | tuple):
        assert value is None or (isinstance(value, int) and 0 <= value < 2**31)


def test_odd_values_in_a_file(compose_conf: Compose, tmp_path: Path) -> None:
    base, file = compose_conf(), tmp_path / "params.yaml"
    names, tried, kept = list(VALUES), 0, 0
    for key, number in pairs(len(VALUES), list(flatten(base))):
        name, tried = names[number], tried + 1
        changed = put(base, key, VALUES[name])
        said = refusal(partial(read_checked, changed, source="params.yaml"))
        if said is not None:
            check_refusal(said, key)
            is_seen = name not in ("null", "deep list", "password") and key != "runtime.tracking_uri"
            if is_seen and "has no effect" not in said and "contradicts" not in said:
                assert shown(VALUES[name])[:20].strip("'") in said, (name, said)
        else:
            kept += 1
            check_accepted(VALUES[name])
            file.write_text(to_yaml(changed))
            assert load_params(file) == changed, "another value comes back from the file"
    print(f"{tried} values, {kept} accepted")
    assert tried > 1000


def test_odd_values_that_are_typed(compose_conf: Compose) -> None:
    base = compose_conf()
    tried = kept = 0

    def read(argument: str, values: list[Any]) -> None:
        (meant,) = read_typed([argument], conf=CONF)
        if IS_LONG:
            values.append(flatten(compose([argument], conf=CONF))[argument.partition("=")[0]])
            return
        key, value = argument.partition("=")[0], OverridesParser.create().parse_override(meant).value()
        read_checked(put(base, key, value if not hasattr(value, "text") else str(value)), source="typed")
        values.append(value)

    for key, number in pairs(len(TYPED), list(flatten(base))):
        argument, tried = f"{key}={TYPED[number]}", tried + 1
        values: list[Any] = []
        said = refusal(partial(read, argument, values))
        if said is None:
            kept += 1
            check_accepted(values[0])
        else:
            check_refusal(said, key)
    print(f"{tried} values, {kept} accepted")
    assert tried > 1000


@pytest.mark.parametrize("text", TYPED if os.environ.get("TORTURE") else TYPED[::6])
def test_odd_values_reach_hydra(text: str) -> None:
    for key in ("data.root", "seed", "full_train.image_size", "runtime.device"):
        said = refusal(partial(compose, [f"{key}={text}"], conf=CONF))
        if said is not None:
            check_refusal(said, key)
