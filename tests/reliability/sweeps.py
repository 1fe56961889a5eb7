"""Sweeps as a user starts them, in processes of their own, on a small run that is done."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from pipeline.files import read_json
from pipeline.harness.base import nest
from pipeline.params import flatten
from tests.conftest import PROJECT, Run


def make_checkout(small: Run, folder: Path) -> None:
    """Fill a folder with a checkout whose experiment `tiny` has the settings of a small run, and with its results."""
    shutil.copytree(PROJECT / "conf", folder / "conf")
    shutil.copytree(PROJECT / "hydra_plugins", folder / "hydra_plugins")
    shutil.copytree(small.artifacts, folder / "artifacts")
    tiny = "# @package _global_\n" + yaml.safe_dump(nest(flatten(small.params)))
    (folder / "conf" / "experiment" / "tiny.yaml").write_text(tiny)


def start_sweep(checkout: Path, name: str, *words: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start a sweep of `full_train` with these words into the folder `name`."""
    env = env or dict(os.environ)
    paths = [str(PROJECT), *filter(None, [env.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "stages.full_train", "-m", "experiment=tiny", *words, f"hydra.sweep.dir={name}"],
        cwd=checkout, env=env | {"PYTHONPATH": os.pathsep.join(paths)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def started(sweep: Path) -> list[str]:
    """The jobs of a sweep that run, or were killed."""
    return sorted(f.parent.name for f in sweep.glob("*/job.json") if read_json(f)["status"] == "started")


def table(sweep: Path) -> list[list[str]]:
    """The sweep's table without what a clock has measured."""
    with (sweep / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [[value for key, value in row.items() if key not in ("seconds", "folder")] for row in rows]
