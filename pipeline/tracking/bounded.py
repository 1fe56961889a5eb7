"""Runs what talks to MLflow in a process of its own, which is ended where a server keeps it waiting.

A server can trickle, redirect or fall silent in ways that no timeout of a library covers; a process can always be
ended. Nothing is lost by that: a row is delivered in steps, each of which the next delivery finds done or undone.
"""

import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.tracking.spec import RowSpec, sqlite_file

READY, SENT, KEPT = "ready", "sent", "kept"
"""What the process says on its standard output: MLflow is imported; the row is delivered, or kept for later."""

LOCAL_S = 60.0
"""How long a file may take, in seconds: MLflow needs a while to make a new one, and no server is waited for."""
_LARGEST_ANSWER = 2 * 2**30
"""Bytes of memory."""
_LOADING_S = 300.0
"""How long importing MLflow may take, in seconds."""


def run_bounded(command: Sequence[str], spec: RowSpec, *, wait_s: float) -> set[str]:
    """Run `command --spec FILE`, and end it `wait_s` seconds after it is READY; return the words that it said."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spec.json"
        spec.write(file)
        process = subprocess.Popen(
            [*command, "--spec", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": folder},  # so that what it leaves behind is removed
            start_new_session=True,
        )
        try:
            return _listen(process, wait_s if sqlite_file(spec.tracking_uri) is None else max(wait_s, LOCAL_S))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with process:  # closes the pipe, and waits
                pass


def say_word(word: str) -> None:
    """Tell the process that waits."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def limit_memory() -> None:
    """Bound the memory that an answer can take: MLflow reads it whole, however large it is."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if sys.platform == "linux" else 0
    if pages:
        most = pages * resource.getpagesize() + _LARGEST_ANSWER
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def exit_after(seconds: float) -> None:
    """End this process after `seconds`, whatever it waits for. Others end what it leaves."""
    timer = threading.Timer(seconds, os._exit, [0])
    timer.daemon = True
    timer.start()


def exit_after_hangup(descriptor: int, seconds: float) -> None:
    """End this process `seconds` after nobody holds the other end of the pipe `descriptor`."""

    def watch() -> None:
        poll = select.poll()
        poll.register(descriptor, 0)  # a hang-up is reported always, and nothing is read here
        poll.poll()
        time.sleep(seconds)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _listen(process: "subprocess.Popen[bytes]", wait_s: float) -> set[str]:
    assert process.stdout is not None
    said, deadline = b"", time.monotonic() + _LOADING_S
    was_ready = False
    while (left := deadline - time.monotonic()) > 0:
        if select.select([process.stdout], [], [], left)[0]:
            new = os.read(process.stdout.fileno(), 4096)
            said += new
            if not new:
                break
            if not was_ready and READY.encode() in said:
                was_ready, deadline = True, time.monotonic() + wait_s
    return set(said.decode().split())
