"""Odd YAML and JSON where settings are read: one error that names the file and the line, and no code runs."""

import shutil
import time
from pathlib import Path

import pytest

from pipeline.harness.base import read_record
from pipeline.harness.compose import compose
from pipeline.params import load_params, to_yaml
from pipeline.settings import SettingsError
from tests.conftest import PROJECT

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join(9 * [f'*a{i}'])}]\n" for i in range(9)
)
REFUSED: dict[str, tuple[bytes, str]] = {
    "a tag that runs code": (b"seed: 1\nx: !!python/object/apply:os.system ['touch ran']\n", ", line 2: tags"),
    "another tag": (b"seed: !mine 1\n", ", line 1: tags"),
    "a key twice": (b"seed: 1\ndata: {}\nseed: 2\n", ", line 3: seed is given a second time; first in line 1"),
    "a key twice within": (b"data:\n  name: a\n  name: b\n", ", line 3: name is given a second time"),
    "a tab": (b"data:\n\tname: a\n", ", line 2: "),
    "an alias bomb": (BOMB.encode(), ", line 2: aliases"),
    "a merge key": (b"a: &a {x: 1}\nb:\n  <<: *a\n", ", line 3: aliases"),
    "binary": (b"\xff\xfe\x00\x01", ", line 1: this is not UTF-8"),
    "a control character": (b"seed: 1\na: \x00\n", ", line 2: a control character"),
    "deep lists": (b"a: " + b"[" * 100_000, ", line 1: more than 20"),
    "a list": (b"- seed\n", ", line 1: `key: value` is expected"),
    "a word": (b"hello\n", ", line 1: `key: value` is expected"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", ", line 2: a second document"),
    "large": (b"a: 1\n" * 300_000, "too many for settings"),
    "a huge number": (b"a: " + b"9" * 10_000, "holds a value that cannot be read"),
    "an open quote": (b"a: 'x\n", ", line "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_odd_yaml_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, said = REFUSED[name]
    shutil.copytree(PROJECT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    for file in (Path("params.yaml"), Path("conf/experiment/mine.yaml"), Path("conf/config.yaml")):
        file.write_bytes(content)
        began = time.monotonic()
        with pytest.raises(SettingsError) as error:
            load_params(file) if file.name == "params.yaml" else compose(["experiment=mine"], conf=Path("conf"))
        assert str(error.value).startswith(f"{file}{said if said.startswith(',') else ''}"), error.value
        assert said in str(error.value)
        assert str(error.value).isprintable()
        assert time.monotonic() - began < 5
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", ["defaults: 5\n", "defaults:\n  - 7\n", "seed:\n  a: 1\n", "data: 3\n", "lrr: 1\n"])
def test_yaml_that_hydra_does_not_expect_is_refused(content: str, tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}")
    with pytest.raises(SettingsError) as error:
        compose(["experiment=mine"], conf=tmp_path / "conf")
    assert "\n" not in str(error.value)


def test_plain_yaml_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = {
        "a": ["1e3", "0o17", "2024-01-01", "${.}", "???", "null", "on", 1e-10, -0.0, None, True, "\x1b[", "é", ""]
    }
    file = tmp_path / "x.yaml"
    file.write_text(to_yaml(values))
    assert load_params(file) == values
    file.write_bytes(b"\xef\xbb\xbfseed: 1\n")
    assert load_params(file) == {"seed": 1}
    file.write_text("")
    assert load_params(file) == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"overrides": [1]}', '{"overrides": {}, "conf": 3}', "[" * 90_000]
)
def test_damaged_overrides_are_refused_by_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "overrides.json").write_text(content)
    with pytest.raises(SettingsError, match=r"overrides\.json is damaged .*`git checkout"):
        read_record(tmp_path)
