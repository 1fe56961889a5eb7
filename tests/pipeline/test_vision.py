"""torchvision is imported in one place, which makes it importable beside any build of torch."""

import subprocess
import sys

import pytest

from tests.conftest import PROJECT


def test_no_other_module_imports_torchvision() -> None:
    importing = {
        str(f.relative_to(PROJECT))
        for folder in ("pipeline", "stages", "pretraining")
        for f in (PROJECT / folder).rglob("*.py")
        if any(line.startswith(("import torchvision", "from torchvision")) for line in f.read_text().splitlines())
    }
    assert importing == {"pipeline/vision.py"}


@pytest.mark.slow
def test_importing_twice_in_any_order_works() -> None:
    code = "import pipeline.vision, torchvision; from pipeline.vision import models; models.resnet18"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=PROJECT)
