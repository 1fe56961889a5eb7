"""Progress bars: one line each in a terminal, gone when done, and nothing at all elsewhere."""

import io
import re
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

import pipeline.console as console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, width: int = 80) -> str:
    out = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Console(file=out, width=width, force_terminal=is_terminal, highlight=False, soft_wrap=True)
    monkeypatch.setattr(console, "_console", lambda: terminal)
    with console.progress_bar("head_train_augmented", 1000) as bar:
        for i in range(50):
            bar.advance(20, note=f"lr {10.0 ** (i - 40):.1e}  loss {i:.3f}")
        bar.advance(0)
    console.say("head_train_augmented", "done")
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_bar_is_one_line_and_leaves_none_behind(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    text = shown(monkeypatch, is_terminal=True, width=width)
    *frames, last = text.split("\x1b[2K")
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", frame).strip("\n") for frame in frames]
    assert any("1000/1000" in line and "left" in line for line in lines)
    assert max(map(len, lines)) <= width
    assert not any("\n" in line for line in lines)
    assert last == "  head_train_augmented done\n"


def test_elsewhere_nothing_but_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert shown(monkeypatch, is_terminal=False) == "  head_train_augmented done\n"
    monkeypatch.setenv("CI", "true")
    assert shown(monkeypatch, is_terminal=True) == "  head_train_augmented done\n"


LONG = (
    "error: `dvc exp run -S data=folder -S 'data.root=a b'` would be read, and 21 images in 猫/犬 are too few for "
    "artifacts/report/cross_validate/suspects.png"
)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_terminal_gets_lines_that_break_between_words(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    terminal = Console(file=out, width=width, force_terminal=True, highlight=False, soft_wrap=True)
    monkeypatch.setattr(console, "_console", lambda: terminal)
    console.say("head_train_augmented", LONG)
    console.note("a: " + LONG)
    lines = out.getvalue().splitlines()
    assert " ".join(out.getvalue().split()) == f"head_train_augmented {LONG} a: {LONG}"
    whole = ("`dvc exp run", "artifacts/report")  # a command and a path are never cut, however narrow the terminal
    assert all(cell_len(line) <= width for line in lines if not any(w in line for w in whole))
    assert sum("-S data=folder -S 'data.root=a b'`" in line for line in lines) == 2
    assert sum(line.endswith("/suspects.png") for line in lines) == 2
    second = lines[1]
    assert len(second) - len(second.lstrip()) == (23 if width > 46 else 2)


def test_a_pipe_gets_one_line_for_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    plain = Console(file=out, width=40, force_terminal=False, highlight=False, soft_wrap=True)
    monkeypatch.setattr(console, "_console", lambda: plain)
    console.complain("config", LONG)
    assert out.getvalue() == f"  {'config':<20} error: {LONG}\n"


def test_columns_inside_a_line_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(
        console, "_console", lambda: Console(file=out, width=80, force_terminal=True, highlight=False, soft_wrap=True)
    )
    console.say("unfreeze", "early          683,072 parameters at 0.111")
    assert out.getvalue() == "  unfreeze             early          683,072 parameters at 0.111\n"
