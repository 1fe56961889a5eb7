"""What comes from outside cannot move the cursor, set colours or ring the bell."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import console
from pipeline.comparison import commands
from pipeline.printable import printable

EVIL = "cat\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202egpj.png\r"
SHOWN = r"cat\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202egpj.png\r"


def test_control_characters_become_escapes() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("été 猫 😀\n\tx") == "été 猫 😀\n\tx"
    assert printable("a\nb", keep="") == r"a\nb"
    assert printable("latin-\udce9") == "latin-\udce9"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_shows_escapes(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(
        console,
        "_console",
        lambda: Console(file=out, force_terminal=terminal, color_system=None, soft_wrap=True, width=200),
    )
    console.say("ingest", EVIL)
    console.complain("ingest", EVIL)
    console.note(EVIL)
    console.show([EVIL])
    assert out.getvalue().count(SHOWN) == 4
    assert printable(out.getvalue()) == out.getvalue()


def test_errors_of_commands_show_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> int:
        raise ValueError(EVIL)

    assert commands.main([], fail, name="unfreeze compare") == 1
    assert capsys.readouterr().err == f"unfreeze compare: error: {SHOWN}\n"


def test_no_name_is_printed_raw_by_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / EVIL
    assert commands.main([str(folder)], lambda a: commands.compare(a, command=str, prog="x"), name="x") == 1
    assert "\x1b" not in capsys.readouterr().err
