"""The environment that fastai runs in, with the same torch as ours, and the variables that both sides get."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FASTAI = "2.8.12"
REMOVED = ("OMP_", "MKL_", "KMP_", "GOMP_", "MALLOC_", "UNFREEZE_", "MLFLOW_", "PYTHON")
"""How the names of variables begin that are not passed on, so that both sides run as in a new shell."""


def requirements() -> list[str]:
    """What is installed for fastai."""
    same = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "torchvision", "safetensors")]
    return [*same, f"fastai=={FASTAI}"]


def make_fastai(folder: Path) -> Path:
    """Make a virtual environment with fastai in `folder`, unless it is there; returns its Python.

    pip takes torch from where it is set up to: `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` gives the
    build without CUDA, which is gigabytes smaller.
    """
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join(requirements())
    if ready.exists() and ready.read_text() == wanted:
        return python
    print(f"installing fastai {FASTAI} into {folder} (a few minutes, once)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements()], check=True, env=variables())
    ready.write_text(wanted)
    return python


def variables(project: Path | None = None) -> dict[str, str]:
    """The environment of a measured program; with `project`, its modules and our own tools are found first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(REMOVED)}
    if project is None:
        return kept
    tools = Path(sys.executable).parent
    return {**kept, "PATH": f"{tools}{os.pathsep}{kept['PATH']}", "PYTHONPATH": str(project)}
