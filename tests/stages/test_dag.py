"""`dvc.yaml` says what the stages declare."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.harness.fingerprints import imported_files
from pipeline.settings import all_keys
from stages import STAGES
from stages.config import main
from stages.dag import load_stages, render
from tests.conftest import PROJECT


def test_the_file_is_what_the_stages_declare() -> None:
    assert (PROJECT / "dvc.yaml").read_text() == render(), "run `python -m stages.dag > dvc.yaml`"


def test_every_stage_reads_only_what_came_before() -> None:
    seen = {"config"}
    for stage in load_stages():
        assert {name.partition("/")[0] for name in stage.inputs} <= seen
        assert set(stage.settings) <= set(all_keys())
        seen.add(stage.name)


def test_one_name_per_stage_everywhere() -> None:
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == ["config", *STAGES, "publish"]
    for name in STAGES:
        assert (PROJECT / "stages" / f"{name}.py").is_file()
        assert stages[name]["cmd"] == f"python -m stages.{name}"
        assert stages[name]["outs"] == [f"artifacts/{name}"]


def test_every_stage_depends_on_its_code() -> None:
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert all(f"artifacts/config/code/{name}.json" in stages[name]["deps"] for name in STAGES)


def test_the_config_stage_fingerprints_the_code_that_python_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PROJECT / "conf", "conf")
    assert main() == 0
    for name in STAGES:
        written = json.loads((tmp_path / f"artifacts/config/code/{name}.json").read_text())
        assert set(written) == set(imported_files(f"stages.{name}", PROJECT))  # see test_imports.py for these
        assert written[f"stages/{name}.py"] == hashlib.sha256((PROJECT / f"stages/{name}.py").read_bytes()).hexdigest()


def test_no_setting_is_read_by_nobody() -> None:
    declared = {d for stage in load_stages() for d in stage.settings}
    leaves = [k for k in all_keys() if not any(o.startswith(f"{k}.") for o in all_keys())]
    unread = [k for k in leaves if not k.startswith("runtime.") and not _covered(k, declared)]
    assert unread == []


def _covered(key: str, declared: set[str]) -> bool:
    return any(key == d or key.startswith(f"{d}.") for d in declared)
