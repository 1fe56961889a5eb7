"""Sweeps in a Slurm of our own, with one node: jobs, the command itself and both are killed; the table is the same."""

import getpass
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.files import read_json
from tests.conftest import Run
from tests.reliability.sweeps import make_checkout, start_sweep, started, table
from tests.reliability.test_postgres import free_port

PROGRAMS = {
    name: shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") for name in ("munged", "slurmctld", "slurmd")
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(
        None in PROGRAMS.values(), reason="needs Slurm: apt-get install slurm-wlm munge; no daemon of it needs to run"
    ),
]

GRID = ("full_train.num_cycles=1", "full_train.until_overfit=false", "full_train.cycle_len=11,12,13")
SLURM = ("launch=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")
CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=node NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES
"""
"""One node of two cores, in no group of processes that needs root, and without accounting."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm that runs as this user, in a folder and on ports of its own; gives the environment of its commands."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, ExitStack() as ended:  # a socket's path must be short
        folder = Path(name)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        (folder / "key").chmod(0o400)
        ports = {"port": free_port(), "node_port": free_port()}
        (folder / "slurm.conf").write_text(CONFIG.format(user=getpass.getuser(), folder=folder, **ports))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("UNFREEZE_THREADS", "OMP", "SLURM"))}
        environment |= {"SLURM_CONF": str(folder / "slurm.conf"), "UNFREEZE_TRACKING": "false"}
        munge = ["--force", "--foreground", f"--socket={folder}/munge.socket", f"--key-file={folder}/key"]
        munge += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
        for program, options in ("munged", munge), ("slurmctld", ["-D"]), ("slurmd", ["-D", "-N", "node"]):
            log = ended.enter_context((folder / f"{program}.txt").open("w"))
            command = [str(PROGRAMS[program]), *options]
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
            ended.enter_context(process)
            ended.callback(process.terminate)
            if program == "munged":
                wait_until((folder / "munge.socket").exists)
        wait_until(lambda: "idle" in ask(environment, "sinfo", "--noheader", "--format=%t"))
        yield environment
        ask(environment, "scancel", f"--user={os.getuid()}")
        wait_until(lambda: not ask(environment, "squeue", "--noheader"))


def ask(environment: dict[str, str], *command: str) -> str:
    """What a command of Slurm says, errors too."""
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    ).stdout


def wait_until(is_true: Callable[[], object], within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def process_of(job: str) -> int:
    """The Python process of a job of Slurm."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = ((entry / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        if b"submitit.core._submit" in command and f"SLURM_JOB_ID={job}".encode() in environment:
            return int(entry.name)
    raise AssertionError(f"job {job} runs no process")


@pytest.fixture(scope="module")
def checkout(small: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    make_checkout(small, folder)
    return folder


@pytest.fixture(scope="module")
def expected(checkout: Path) -> list[list[str]]:
    """The table of jobs that ran one after the other here."""
    said = start_sweep(checkout, "plain", *GRID).communicate(timeout=300)[0]
    assert len(table(checkout / "plain")) == 3, said
    return table(checkout / "plain")


def test_killed_jobs_take_no_other_with_them(slurm: dict[str, str], checkout: Path, expected: list[list[str]]) -> None:
    """One task of the array is cancelled, and the process of another is killed."""
    process = start_sweep(checkout, "killed", *GRID, *SLURM, env=slurm)
    wait_until(lambda: len(started(checkout / "killed")) == 2)
    tasks = ask(slurm, "squeue", "--array", "--noheader", "--states=RUNNING", "--format=%A %F_%K").split("\n")[:2]
    (_, cancelled), (killed, _) = (task.split() for task in tasks)
    ask(slurm, "scancel", cancelled)
    os.kill(process_of(killed), signal.SIGKILL)
    said = process.communicate(timeout=300)[0]
    assert "the launcher failed (UncompletedJobError" in said
    assert "2 jobs did not end: launched again" in said
    assert table(checkout / "killed") == expected, said
    assert process.returncode == 0
    threads = {read_json(f)["environment"]["threads"] for f in (checkout / "killed").glob("*/*/stage.json")}
    assert threads == {1}, "as many as hydra.launcher.cpus_per_task"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_same_command_waits_for_what_still_runs_in_the_queue(
    slurm: dict[str, str], checkout: Path, expected: list[list[str]], number: signal.Signals
) -> None:
    process = start_sweep(checkout, number.name, *GRID, *SLURM, env=slurm)
    wait_until(lambda: started(checkout / number.name))
    os.kill(process.pid, number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == (130 if number == signal.SIGINT else -number), said
    assert ask(slurm, "squeue", "--noheader"), "the jobs go on"
    process = start_sweep(checkout, number.name, *GRID, *SLURM, env=slurm)
    said = process.communicate(timeout=300)[0]
    assert table(checkout / number.name) == expected, said
    assert process.returncode == 0
