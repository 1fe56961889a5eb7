"""What one clone has pushed, another pulls, and then runs nothing: through a folder, and through S3."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT, write_pictures
from tests.reliability.conftest import SMALL

OWN = {"user.name": "A", "user.email": "a@b.c"}
ALWAYS = {"config", "publish"}
"""Stages that run at every `dvc repro`; neither computes anything."""
IN_MEMORY = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


def clone(source: Path, target: Path) -> Path:
    """Clone a project, and put the photos beside it, as another person would: written now, the same bytes."""
    subprocess.run(["git", "clone", "--quiet", str(source), str(target)], check=True)
    for key, value in OWN.items():
        subprocess.run(["git", "config", key, value], cwd=target, check=True)
    write_pictures(target / "photos")
    (target / ".git" / "info" / "exclude").write_text("/photos/\n")
    return target


def run(checkout: Path, *command: str) -> str:
    """Run a command in a clone, whose own code is used, and return what it prints."""
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "DVC_SITE_CACHE_DIR": str(checkout.parent / "site"),
        **IN_MEMORY,
    }
    done = subprocess.run(command, cwd=checkout, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def commit(checkout: Path) -> None:
    run(checkout, "git", "add", "-A")
    run(checkout, "git", "commit", "-qm", "what was run, and where its results are")


def ran(said: str) -> set[str]:
    return set(re.findall(r"Running stage '(\w+)'", said))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.slow
def test_what_was_pushed_to_a_folder_is_not_run_again(tmp_path: Path) -> None:
    here = clone(PROJECT, tmp_path / "here")
    edit(here / "conf" / "config.yaml", "- data: digits", "- data: folder")
    edit(here / "conf" / "data" / "folder.yaml", "root: null", "root: photos")
    assert ran(run(here, "dvc", "repro", "augment_config")) == {"config", "ingest", "augment_config"}
    run(here, "dvc", "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    commit(here)
    run(here, "dvc", "push", "--with-deps", "augment_config")

    there = clone(here, tmp_path / "there")
    run(there, "dvc", "pull", "--with-deps", "augment_config")
    assert ran(run(there, "dvc", "repro", "augment_config")) == {"config"}
    assert run(there, "git", "status", "--short") == ""


def test_no_output_but_those_of_a_run_can_be_missing(tmp_path: Path) -> None:
    """`dvc pull` and `dvc exp apply` fail for a cached output that a committed lock names and nobody pushed."""
    there = clone(PROJECT, tmp_path / "there")
    run(there, "dvc", "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    run(there, "dvc", "pull", "pretraining/dvc.yaml")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that speaks S3, with an empty bucket."""
    pytest.importorskip("moto")
    pytest.importorskip("dvc_s3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    log = (tmp_path_factory.mktemp("moto") / "log.txt").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **IN_MEMORY}) as moto:
        try:
            address = f"http://127.0.0.1:{port}"
            put_bucket(f"{address}/shelf")
            yield address
        finally:
            moto.kill()


def put_bucket(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="PUT"), timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def pushed(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which everything ran, whose results are in S3, and whose lock is committed."""
    here = clone(PROJECT, tmp_path_factory.mktemp("s3") / "here")
    settings = [part for setting in (*SMALL, "data.root=photos") for part in ("-S", setting)]
    assert len(ran(run(here, "dvc", "exp", "run", *settings))) == 15
    run(here, "dvc", "remote", "add", "-d", "shelf", "s3://shelf/unfreeze")
    run(here, "dvc", "remote", "modify", "shelf", "endpointurl", server)
    commit(here)
    run(here, "dvc", "push", "--run-cache")
    return here


@pytest.mark.slow
@pytest.mark.xdist_group("s3")
def test_what_was_pushed_to_s3_is_not_run_again(pushed: Path) -> None:
    there = clone(pushed, pushed.parent / "there")
    run(there, "dvc", "pull")
    assert ran(run(there, "dvc", "repro")) == ALWAYS
    assert run(there, "git", "status", "--short") == ""
    model = "artifacts/tta_evaluate/model/model.safetensors"
    assert (there / model).read_bytes() == (pushed / model).read_bytes()
    assert ran(run(there, "dvc", "exp", "run", "-S", "tta_evaluate.views=3")) == {
        *ALWAYS, "tta_evaluate", "report", "scores"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.xdist_group("s3")
def test_without_a_lock_results_come_from_the_run_cache(pushed: Path) -> None:
    """As in a team that commits no lock. `scores` writes what is in git, which DVC does not keep."""
    there = clone(pushed, pushed.parent / "without")
    (there / "dvc.lock").unlink()
    assert ran(run(there, "dvc", "repro", "--pull")) == {*ALWAYS, "scores"}
    assert (there / "dvc.lock").read_bytes() == (pushed / "dvc.lock").read_bytes()
