"""Signals that ask for a stop: noted, obeyed at the next boundary, not seen by helpers, and the second one ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import stopping
from pipeline.console import progress_bar
from pipeline.harness.lock import hold_lock
from pipeline.harness.stop import obeying
from pipeline.stopping import SIGNALS, Stopped, forget, interrupting, listen, raise_if_requested, requested, shielded
from tests.conftest import PROJECT


@pytest.fixture(autouse=True)
def _forgetting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    forget()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_obeyed_at_the_next_boundary(number: signal.Signals) -> None:
    listen()
    done = []

    def work() -> None:
        with progress_bar("a", 9) as bar:
            for i in range(9):
                if i == 3:
                    signal.raise_signal(number)
                done.append(i)  # never broken in two
                bar.advance()

    with pytest.raises(Stopped) as caught:
        work()
    assert done == [0, 1, 2, 3]
    assert caught.value.status == 128 + number


def test_what_is_ignored_stays_ignored_as_nohup_wants_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        listen()
        signal.raise_signal(signal.SIGHUP)
        assert requested() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_fork_does_not_obey_what_its_parent_was_asked_for() -> None:
    listen()
    signal.raise_signal(signal.SIGTERM)
    child = os.fork()
    if child == 0:
        os._exit(0 if requested() is None else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_under_dvc_the_end_of_dvc_is_a_signal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "a")
    listen()
    raise_if_requested()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(Stopped):
        raise_if_requested()


def test_a_helper_is_not_reached_by_what_the_terminal_sends() -> None:
    code = "import os, signal; [os.kill(os.getpid(), n) for n in (2, 15, 1)]; print('alive')"
    with shielded():
        helper = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert helper.communicate()[0] == "alive\n"
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(SIGNALS)


WAITS = """
import time
from pipeline.stopping import listen
listen()
print("ready", flush=True)
for _ in range(600):
    time.sleep(0.05)
"""
"""A program that never comes to a boundary."""


def test_a_second_signal_ends_at_once_and_one_that_was_sent_twice_does_not() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert process.poll() is None
    time.sleep(stopping.AGAIN_S)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM
    assert error == "  stopping: the running step is finished and kept; a second signal ends at once\n"


def test_who_waits_for_another_process_is_stopped_too(tmp_path: Path) -> None:
    listen()
    with hold_lock(tmp_path / "lock", identity="a", say=lambda _: None):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped), hold_lock(tmp_path / "lock", identity="a", say=lambda _: None):
            pass


def test_a_program_says_how_to_go_on_and_ends_with_the_usual_status(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        signal.raise_signal(signal.SIGTERM)
        raise_if_requested()
        return 0

    assert obeying("full_train", work) == 143
    assert "full_train           stopped; the same command goes on from here" in capsys.readouterr().err


def test_a_program_that_is_done_leaves_the_wish_to_the_next_of_the_same_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "config")

    def ends_all_the_same() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    def next_one() -> int:
        raise_if_requested()
        return 0

    assert obeying("config", ends_all_the_same) == 0
    forget()
    assert obeying("ingest", next_one) == 130
    forget()
    assert obeying("ingest", next_one) == 0  # it was obeyed

    assert obeying("config", ends_all_the_same) == 0
    forget()
    parent = os.getppid()
    monkeypatch.setattr(os, "getppid", lambda: parent + 1)  # another `dvc repro`
    assert obeying("ingest", next_one) == 0


def test_what_only_waits_obeys_at_once_and_afterwards_as_before() -> None:
    listen()
    with pytest.raises(Stopped), interrupting():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is stopping._note
    with pytest.raises(Stopped), interrupting():
        raise AssertionError("a stop that was asked for before comes first")
