"""The import graph, against a brute-force reference: what Python really loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.harness.fingerprints import imported_files
from stages import STAGES
from tests.conftest import PROJECT

LOADED = """
import importlib, json, sys, pathlib
importlib.import_module(sys.argv[1])
files = [getattr(m, "__file__", None) for m in list(sys.modules.values())]
print(json.dumps([f for f in files if f and pathlib.Path(f).is_relative_to(sys.argv[2])]))
"""


@pytest.mark.parametrize("module", ["stages.config", "stages.ingest", "stages.tta_evaluate", "stages.publish"])
def test_everything_that_python_loads_is_listed(module: str) -> None:
    command = [sys.executable, "-c", LOADED, module, str(PROJECT)]
    output = subprocess.run(command, check=True, cwd=PROJECT, capture_output=True, text=True).stdout
    loaded = {str(Path(f).relative_to(PROJECT)) for f in json.loads(output) if ".venv" not in f}
    assert loaded <= set(imported_files(module, PROJECT))
    assert loaded


def test_imports_inside_functions_and_templates_count() -> None:
    assert "pipeline/model/compute.py" in imported_files("pipeline.harness.stage", PROJECT)
    assert "pipeline/report/html.j2" in imported_files("stages.tta_evaluate", PROJECT)


def test_no_stage_depends_on_another_stage_on_hydra_or_on_mlflow() -> None:
    for name in STAGES:
        files = imported_files(f"stages.{name}", PROJECT)
        assert [f for f in files if f.startswith("stages/")] == ["stages/__init__.py", f"stages/{name}.py"]
        assert not {"pipeline/config.py", "pipeline/by_hand.py", "pipeline/delivery.py"} & set(files)
        assert not [f for f in files if f.startswith("pipeline/tracking")]
