"""Every setting, changed, arrives where it is read: from `params.yaml`, and typed by hand."""

import ast
import os
import typing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.harness.checked import read_checked
from pipeline.harness.compose import compose
from pipeline.harness.execute import declared_settings
from pipeline.harness.quoting import hydra_value
from pipeline.harness.stage import dotted_keys, select
from pipeline.params import flatten, load_params, to_yaml
from pipeline.settings import Settings, SettingsError
from stages.registry import ALL
from tests.conftest import PROJECT, put

CONF = PROJECT / "conf"
IS_LONG = bool(os.environ.get("TORTURE"))
"""Whether every setting is typed too: composing takes a while, so a quarter is otherwise."""
LEAVES = [*dotted_keys(Settings)]
READERS = {"runtime": "what starts a stage", "publish": "the stage publish, which makes no folder"}
"""Sections that no stage declares, for they change no result."""
OTHERS: tuple[Any, ...] = (
    0.25, 1.5, 2, 3, 48, True, False, 0.0, 1.0, 0.001, "auto", "full", "csv", "photos", "table.csv", "label", "white",
    "resnet34", "none", "cpu", "cats", [0.5], [0.01, 0.02, 0.03], "http://server:5000", 0.05, 1e-3, 5.5, "MNIST",
)  # fmt: skip
CONTEXTS: tuple[tuple[str, ...], ...] = (
    (), ("data=csv", "data.root=images.csv"), ("data=cifar10",), ("head_train=sgd",), ("tta_evaluate=sliding_window",),
    ("tta_evaluate=multi_scale",), ("publish.register=cats",),
    ("full_train.schedule=one_cycle", "full_train.cycle_mult=1", "full_train.num_cycles=1"),
    ("full_train.cycle_mult=1",), ("data.max_rejected=0.0",),
)  # fmt: skip
TOGETHER = {
    "data.name": ("data=folder", "data.root=x"),
    "head_train.solver": ("head_train=sgd",),
    "tta_evaluate.mode": ("tta_evaluate=sliding_window",),
    "unfreeze.lrs": ("unfreeze.lr_ratio=null", "unfreeze.lrs=[0.01,0.02,0.03]"),
}
"""Settings that only change together with others."""


@cache
def base(context: tuple[str, ...]) -> dict[str, Any]:
    return compose(context, conf=CONF)


def literals(key: str) -> list[Any]:
    """The words that a setting may be."""
    kind: Any = Settings
    for part in key.split("."):
        kind = typing.get_type_hints(kind)[part]
    kinds = [kind, *typing.get_args(kind)]
    return [word for k in kinds if typing.get_origin(k) is typing.Literal for word in typing.get_args(k)]


def other_value(key: str) -> tuple[tuple[str, ...], Any, dict[str, Any]]:
    """Another value that the setting may have, the choices beside which it may, and all the settings then."""
    if key in TOGETHER:
        changed = compose(TOGETHER[key], conf=CONF)
        return TOGETHER[key], flatten(changed)[key], changed
    for context in CONTEXTS:
        values = base(context)
        for value in (*literals(key), *OTHERS):
            before, changed = flatten(values)[key], put(values, key, value)
            if before == value or (isinstance(before, bool) is not isinstance(value, bool) and before is not None):
                continue
            try:
                read_checked(changed, source=key)
            except SettingsError:
                continue
            return context, value, changed
    raise AssertionError(f"no other value of {key} is accepted")


def arrived(settings: Any, key: str) -> Any:
    for part in key.split("."):
        settings = getattr(settings, part)
    return settings


@pytest.mark.parametrize("key", LEAVES)
def test_a_changed_value_arrives(key: str, tmp_path: Path) -> None:
    context, value, changed = other_value(key)
    (tmp_path / "params.yaml").write_text(to_yaml(changed))
    from_file = load_params(tmp_path / "params.yaml")
    is_typed = IS_LONG or LEAVES.index(key) % 4 == 0
    by_hand = compose([*context, f"{key}={hydra_value(value)}"], conf=CONF) if is_typed else from_file
    readers = [stage for stage in ALL if key in stage.settings]
    assert readers or key.partition(".")[0] in READERS
    for params in (from_file, by_hand):
        settings = read_checked(params, source="x")
        expected = arrived(settings, key)
        assert (list(expected) if isinstance(expected, tuple) else expected) == value
        for stage in readers:
            assert arrived(select(stage.reads, settings), key) == expected
            assert declared_settings(stage, params)[key] == value, "part of the stage's identity"


def test_dvc_watches_what_the_stages_declare() -> None:
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    for stage in ALL:
        assert set(stage.settings) == set(stages[stage.name].get("params", [])), stage.name


def test_every_setting_is_used_by_code() -> None:
    """A setting that is declared and hashed, but that no line of code looks at, would have no effect."""
    used: set[str] = set()
    for file in (*(PROJECT / "pipeline").rglob("*.py"), *(PROJECT / "stages").rglob("*.py")):
        if file != PROJECT / "pipeline" / "settings.py":
            nodes = ast.walk(ast.parse(file.read_text()))
            used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert {key for key in LEAVES if key.rpartition(".")[2] not in used} == set()
