"""Processes of this machine are known by name, and a name is not taken over by a later process."""

import os
import subprocess

import pytest

from pipeline.processes import is_alive, named_is_alive, process_name


def test_a_process_is_alive_until_it_has_ended() -> None:
    process = subprocess.Popen(["sleep", "60"])
    name = process_name(process.pid)
    assert is_alive(process.pid)
    assert named_is_alive(name)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its parent has not noticed
    assert not is_alive(process.pid)
    assert not named_is_alive(name)
    process.wait()
    assert not named_is_alive(name)


@pytest.mark.parametrize(("change", "alive"), [(("", ""), True), ((":", ":9"), False)])
def test_a_later_process_with_the_same_number_is_another_one(change: tuple[str, str], alive: bool) -> None:
    host, pid, started = process_name(os.getpid()).split(":")
    assert named_is_alive(f"{host}:{pid}:{change[1].removeprefix(':')}{started}") is alive


def test_nothing_is_known_of_other_machines() -> None:
    assert named_is_alive("elsewhere:1:1")
    assert named_is_alive("")
