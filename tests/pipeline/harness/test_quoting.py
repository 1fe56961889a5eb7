"""Settings as text: whatever a value is, what is printed can be pasted into a shell and reaches Hydra as that value."""

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.harness.quoting import hydra_value, typed


def through_the_shell(value: object) -> Any:
    """What arrives where `typed` is pasted behind a command."""
    (word,) = shlex.split(typed({"data.root": value}))
    override = OverridesParser.create().parse_override(word)
    assert override.key_or_group == "data.root"
    return OmegaConf.to_container(OmegaConf.create({"value": override.value()}), resolve=True)["value"]  # type: ignore[index,call-overload]


PATHS = ["фото", "don't", "pics (1)", "a&b", "x=1", "a,b", "2024", "1e3", "~/photos", "#ffffff", 'say "hi"', "c:\\x\\"]


@pytest.mark.parametrize(
    "text", [*PATHS, "", "null", "True", "$1 or ${2}", "[a]", "{b: c}", "\\'", "two\nlines", "猫/ñ"]
)
def test_text_arrives_as_it_was(text: str) -> None:
    assert through_the_shell(text) == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_arrives_as_it_was(text: str) -> None:
    assert through_the_shell(text) == text


@pytest.mark.parametrize("value", [None, True, 3, 1e-10, -0.0714, [1e-5, 0.1], ["a b", "c"], {"valid": 0.2, "test": 0}])
def test_other_values_arrive_too(value: object) -> None:
    assert through_the_shell(value) == value


def test_plain_words_stay_plain() -> None:
    assert typed({"model.arch": "resnet18", "data.root": "photos/cats-2.zip"}, flag="-S") == (
        "-S model.arch=resnet18 -S data.root=photos/cats-2.zip"
    )
    assert hydra_value("2024") == '"2024"'
