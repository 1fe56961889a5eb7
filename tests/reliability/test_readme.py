"""The README's way for one's own photos, typed in a fresh clone: to a class, to a sweep, to its winner."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PROJECT

pytestmark = pytest.mark.slow

OFFLINE = "-S model.weights=none -S model.arch=squeezenet1_1 -S data.image_size=64 -S full_train.num_cycles=1"
"""What a test adds: no download, and small images."""

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def write_photos(folder: Path, each: int = 20) -> None:
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            noise = generator.integers(-40, 40, size=(72, 96, 3))
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.jpg")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("readme") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(target)], check=True)
    for key, value in (("user.name", "A"), ("user.email", "a@b.c")):
        subprocess.run(["git", "config", key, value], cwd=target, check=True)
    write_photos(target / "photos")
    write_photos(target / "new_photos", each=2)
    return target


def type_in(clone: Path, command: str, *, more: str = "") -> str:
    """Run a command that the README shows, and return what it prints, also to standard error; `more` is appended."""
    assert command in (PROJECT / "README.md").read_text(encoding="utf-8"), command
    return run(clone, f"{command} {more}")


def run(clone: Path, command: str) -> str:
    """Run a command as in a shell where the environment of this interpreter is active: DVC starts `python` by name."""
    home = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(clone)}
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("UNFREEZE_", "MLFLOW_"))}
    done = subprocess.run(
        shlex.split(command), cwd=clone, env={**unset, **home}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_own_photos_to_a_class_to_a_sweep_to_its_winner(clone: Path) -> None:
    out = type_in(clone, "dvc exp run -S experiment=photos -S data.root=photos", more=OFFLINE)
    assert re.search(r"^Result .* of \d+ test images correct", out, re.MULTILINE)
    assert "unfreeze predict artifacts/tta_evaluate/model PHOTO" in out

    out = type_in(clone, "unfreeze predict artifacts/tta_evaluate/model new_photos/")
    assert len([line for line in out.splitlines() if line.startswith("new_photos/")]) == 6
    type_in(clone, "unfreeze export artifacts/tta_evaluate/model model.onnx")
    exported = type_in(clone, "unfreeze predict model.onnx new_photos/")
    assert [line.split()[:2] for line in exported.splitlines()] == [line.split()[:2] for line in out.splitlines()]

    out = type_in(clone, "python -m stages.full_train -m full_train.cycle_len=1,2 full_train.cycle_mult=1,2")
    assert "base: held settings (photos, squeezenet1_1, 64 px)" in out
    assert out.index("Sweep of 4 jobs") < out.index("To use the first:")
    winner = out.partition("To use the first:\n")[2].splitlines()[0].strip()
    assert winner.startswith("dvc exp run -S full_train.")
    run(clone, winner)
