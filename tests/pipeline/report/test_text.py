"""Hostile and undrawable names."""

import pytest

from pipeline.report.text import class_labels, drawable


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("cat", "cat"),
        ("line\nbreak\ttab", "line break tab"),
        ("$x_1$ <b>", "$x_1$ <b>"),
        ("犬", "□"),
        ("a\x00b\u202ec\ufe0f", "abc"),
        ("cafe\u0301", "café"),
        ("\udcff.png", "□.png"),
        ("", ""),
    ],
)
def test_what_is_drawn(text: str, want: str) -> None:
    assert drawable(text) == want


def test_long_names_keep_both_ends() -> None:
    assert drawable("image_0123456789_0123456789.jpeg", 12) == "image_….jpeg"


def test_classes_that_look_the_same_are_numbered() -> None:
    assert class_labels(["犬", "cat", "猫", ""]) == ["0: □", "cat", "2: □", "3: "]
