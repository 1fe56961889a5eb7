"""Fingerprints of code: of its meaning, and of all that Python really loads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.harness import fingerprints
from pipeline.harness.fingerprints import code_fingerprint, computing_files, keep_code, read_code, recall_code
from stages import STAGES
from tests.conftest import PROJECT
from tests.edits import EDITS, Edit

LOADED = """
import importlib, json, sys, pathlib
def loaded():
    files = [getattr(m, "__file__", None) for m in list(sys.modules.values())]
    return {f for f in files if f and pathlib.Path(f).is_relative_to(sys.argv[2])}
import pipeline.harness.start
before = loaded()
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(loaded() - before)))
"""
"""Prints the files that a stage loads beyond those that the harness loads by itself."""


@pytest.mark.parametrize("module", ["stages.ingest", pytest.param("stages.full_train", marks=pytest.mark.slow)])
def test_everything_that_python_loads_for_a_stage_is_listed(module: str) -> None:
    command = [sys.executable, "-c", LOADED, module, str(PROJECT)]
    output = subprocess.run(command, check=True, cwd=PROJECT, capture_output=True, text=True).stdout
    loaded = {str(Path(f).relative_to(PROJECT)) for f in json.loads(output) if ".venv" not in f}
    assert {f for f in loaded if not f.startswith(fingerprints.NOT_COMPUTING)} <= set(computing_files(module))
    assert len(loaded) > 5


def test_imports_inside_functions_and_templates_count() -> None:
    assert "pipeline/model/growing.py" in computing_files("stages.precompute")
    assert "pipeline/data/augment.py" in computing_files("stages.report")
    assert {"pipeline/report/html.j2", "pipeline/report/training_plots.py"} <= set(computing_files("stages.report"))


def test_no_stage_depends_on_another_stage_on_what_starts_it_or_on_what_draws() -> None:
    for name in STAGES:
        files = computing_files(f"stages.{name}")
        assert [f for f in files if f.startswith("stages/")] == [f"stages/{name}.py"]
        assert not [f for f in files if f.startswith(("pipeline/harness", "pipeline/tracking", "pipeline/console"))]
        assert "pipeline/settings.py" not in files
        assert name == "report" or not [f for f in files if f.startswith("pipeline/report")]


def test_the_format_is_part_of_every_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_fingerprint("stages.unfreeze")
    monkeypatch.setattr(fingerprints, "FORMAT", before["format"] + 1)
    assert code_fingerprint("stages.unfreeze") != before


BASE = '''
"""Docstring."""
from dataclasses import dataclass


@dataclass
class Point:
    x: int
    """Where."""


def double(p: Point, *, factor: float = 2.0) -> float:
    # why
    total: float = p.x * factor
    if total < 0:
        raise ValueError(f"{total} is negative")
    say(f"total {total}")
    assert total >= 0, "impossible"
    return total
'''


def meaning(source: str) -> str:
    return read_code(source.encode()).meaning


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Docstring."""', '"""Other words."""'),
        ('    """Where."""\n', ""),
        ("    # why\n", ""),
        ("p: Point", "p: 'Point'"),
        ("-> float", "-> int"),
        ("    total: float = p.x", "    total = p.x"),
        ('f"{total} is negative"', '"it must not be negative: set factor above 0"'),
        ('    say(f"total {total}")\n', ""),
        ('"impossible"', '"cannot happen"'),
        (
            "from dataclasses import dataclass\n",
            "from dataclasses import dataclass\nfrom collections.abc import Sequence\n",
        ),
        ("    return total\n", "    return (\n        total\n    )\n"),
    ],
)
def test_words_and_annotations_have_no_meaning(old: str, new: str) -> None:
    assert old in BASE
    assert meaning(BASE.replace(old, new)) == meaning(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("factor: float = 2.0", "factor: float = 3.0"),
        ("p.x * factor", "p.x + factor"),
        ("if total < 0", "if total <= 0"),
        ("raise ValueError", "raise TypeError"),
        ('raise ValueError(f"{total} is negative")', 'raise UnusableError("negative")'),
        ("    x: int\n", "    x: int\n    y: int\n"),
        ("    x: int\n", "    x: int = 0\n"),
        ("@dataclass\n", "@dataclass(frozen=True)\n"),
        ("    return total\n", "    return str(total)\n"),
    ],
)
def test_what_computes_has(old: str, new: str) -> None:
    assert old in BASE
    assert meaning(BASE.replace(old, new)) != meaning(BASE)


def test_the_text_of_an_error_of_our_own_has_meaning_because_it_may_be_kept_as_data() -> None:
    first, second = (meaning(f'raise DecodeError("{text}")') for text in ("empty file", "no bytes"))
    assert first != second


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("code")
    for package in ("pipeline", "stages", "conf"):
        shutil.copytree(PROJECT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def before(copied: Path) -> dict[str, object]:
    return {name: code_fingerprint(f"stages.{name}", copied) for name in STAGES}


@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e.name)
def test_each_kind_of_edit_reruns_what_it_should_and_no_more(
    edit: Edit, copied: Path, before: dict[str, object]
) -> None:
    """`python -m tests.edits` does the same with `dvc repro`."""
    with edit.made_in(copied):
        after = {name: code_fingerprint(f"stages.{name}", copied) for name in STAGES}
    assert {name for name in STAGES if after[name] != before[name]} == edit.changes


def test_what_is_known_of_a_source_is_kept_and_not_of_one_that_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget() -> None:
        read_code.cache_clear()
        for codes in ("_known", "_read"):
            monkeypatch.setattr(fingerprints, codes, {})

    forget()
    first, second = read_code(b"import a\nx = 1"), read_code(b"y = 2")
    keep_code(tmp_path)
    forget()
    recall_code(tmp_path)
    monkeypatch.setattr(fingerprints, "_CodeWriter", None)  # nothing can be parsed any more
    assert (read_code(b"import a\nx = 1"), read_code(b"y = 2")) == (first, second)
    with pytest.raises(TypeError):
        read_code(b"y = 3")
    monkeypatch.undo()

    forget()
    monkeypatch.setattr(fingerprints, "_reader", lambda: "another Python, or another way to read")
    recall_code(tmp_path)
    assert fingerprints._known == {}
    monkeypatch.undo()
    read_code.cache_clear()
