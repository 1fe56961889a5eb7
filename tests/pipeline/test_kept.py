"""What is kept between runs: whole, or dropped with a line."""

from pathlib import Path

import pytest

from pipeline.kept import read_kept, read_sealed, write_kept, write_sealed


def test_a_value_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "state.json"
    write_kept(file, {"a": [1, 2.5, None]})
    assert read_kept(file) == {"a": [1, 2.5, None]}
    assert read_kept(tmp_path / "none.json") is None


@pytest.mark.parametrize("content", [b"", b"x", b"\x00" * 500])
def test_every_flip_and_every_cut_is_noticed(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "state"
    write_sealed(file, content)
    stored = file.read_bytes()
    flips = [stored[:i] + bytes([stored[i] ^ 4]) + stored[i + 1 :] for i in range(len(stored))]
    for damaged in flips + [stored[:i] for i in range(len(stored))] + [stored + b"\n"]:
        file.write_bytes(damaged)
        assert read_sealed(file) is None
        assert not file.exists(), "a damaged file stays in nobody's way"
        assert str(file) in "".join(capsys.readouterr().err.split())
    write_sealed(file, content)
    assert read_sealed(file) == content
