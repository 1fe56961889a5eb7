"""A warm process: the stages of one `dvc repro` are forked from it, so that torch is imported once and not ten times.

DVC starts each stage as a command, `python -m stages.full_train`. Its first act is `hand_over`: it sends the name of
the stage and its standard streams to the warm process of this DVC run, and waits until the stage has ended, to end in
the same way. The warm process imports the stage's module, forks, and the child runs it as the command would have done.
It computes nothing itself, starts no thread of torch and does not touch a GPU, so a child is as good as a new process.

The first stage that is followed by training starts it. It belongs to one DVC process, one environment and one working
folder, which its address is made of; it ends with that DVC, when it has nothing to do for a minute, and when a source
has changed since it began.
Wherever anything is in the way before the stage has begun, the command runs it itself, and comes to the same result.

The stage's process stays in the group of DVC, so it gets what the terminal sends. A signal to the command is passed on;
if the command is killed, so is the stage. If DVC ends, so does the warm process, by which the stage knows of it.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from pipeline.paths import PROJECT
from pipeline.processes import command_of, named_is_alive, parent_of, process_name, work_for
from pipeline.stopping import SIGNALS, listen, requested

IDLE_S = 60.0
"""How long it waits for the next stage."""
LIGHT = ("config", "ingest", "report", "scores", "publish")
"""Stages without torch. They use the warm process where there is one. Only `ingest`, which training always follows,
starts it: torch is imported while it runs."""
_LONGEST = 4096
_Dispositions = dict[int, Any]


# The command that DVC starts.


def hand_over() -> None:
    """Let the warm process run the stage that this command stands for, and end as it does.

    Returns if the command has to run the stage itself: nothing of it has begun then.
    """
    stage = os.environ.get("DVC_STAGE", "")
    as_declared = sys.orig_argv[1:] == ["-m", f"stages.{stage}"]
    if sys.platform != "linux" or "DVC_ROOT" not in os.environ or not as_declared:
        return
    with _passing_on() as process:
        for _ in range(2):  # one that finds itself out of date ends without an answer; then a new one is started
            with suppress(OSError), _connected(stage) as connection:
                socket.send_fds(connection, [stage.encode()], [0, 1, 2])
                if begun := connection.recv(_LONGEST):
                    process.begin(json.loads(begun))
                    _end_like(_answer(connection))


@contextmanager
def _connected(stage: str) -> Iterator[socket.socket]:
    """Connect to the warm process of this DVC, which is started if need be. Raises OSError where there is none."""
    address = _address()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(address)
        except ConnectionRefusedError:
            if stage in LIGHT and stage != "ingest":
                raise
            _start(address)
            connection.connect(address)
        if _peer_user(connection) != os.getuid():
            raise PermissionError("this address belongs to another user")
        yield connection


def _dvc() -> str:
    """The name of the DVC that started this command, also through a shell that waits for it, as dash does."""
    parent, stage = os.getppid(), os.environ["DVC_STAGE"]
    return process_name(parent_of(parent) if command_of(parent)[-1:] == [f"python -m stages.{stage}"] else parent)


def _address() -> str:
    """An abstract address, which vanishes with the process that listens there, and needs no file."""
    environment = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    owner = [_dvc(), sys.executable, str(PROJECT), str(Path.cwd()), environment]
    return f"\0unfreeze-{sha256(json.dumps(owner, sort_keys=True).encode()).hexdigest()}"


def _start(address: str) -> None:
    """Start the warm process. Whoever connects to its socket may do so before it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        nowhere, number = subprocess.DEVNULL, listening.fileno()
        command = [sys.executable, "-m", __name__, str(number), _dvc()]
        subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, pass_fds=[number])


def _answer(connection: socket.socket) -> bytes:
    """How the stage has ended; nothing if the process that would know has."""
    with suppress(OSError):
        return connection.recv(_LONGEST)
    return b""


def _peer_user(connection: socket.socket) -> int:
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


class _Process:
    """The stage's process, once it has begun, and the signals for it that came before."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self.waiting = [] if (number := requested()) is None else [number]

    def begin(self, pid: int) -> None:
        self._pid = pid
        for number in self.waiting:
            self.signal(number)

    def signal(self, number: int, _frame: object = None) -> None:
        if self._pid is None:
            self.waiting.append(number)
        else:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)


@contextmanager
def _passing_on() -> Iterator[_Process]:
    """Pass signals that ask for a stop on to the stage. Those that are ignored stay ignored."""
    process = _Process()
    before = _handle(process.signal)
    try:
        yield process
    finally:
        _restore(before)
        for number in process.waiting:  # no process has begun that could get them
            signal.raise_signal(number)


def _handle(handler: Any) -> _Dispositions:
    """Set `handler` for signals that ask for a stop, but for ignored ones; returns what was there."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, was in before.items():
        if was != signal.SIG_IGN:
            signal.signal(number, handler)
    return before


def _restore(before: _Dispositions) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _end_like(ended: bytes) -> NoReturn:
    """End with the exit status of the stage, or by the signal that it was ended by."""
    if not ended and (number := requested()) is not None:  # DVC is gone: nobody reads this status
        os._exit(128 + number)
    if not ended:
        sys.stderr.write("  error: the process that the stages are forked from was lost; type the same command again\n")
        os._exit(1)
    status = int(json.loads(ended))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


# The warm process.


def serve(listening: socket.socket, dvc: str) -> str:
    """Fork a child for each stage that is asked for; returns in the child, the name of its module."""
    before = _handle(signal.SIG_IGN)
    began, owner, imports = _sources(), _process_fd(dvc), _imports()
    while listening in _ready([listening, owner], IDLE_S):
        connection, _ = listening.accept()
        message, streams, _, _ = socket.recv_fds(connection, _LONGEST, 3)
        if not message or _peer_user(connection) != os.getuid():
            connection.close()
            continue
        if _sources() != began:
            listening.close()  # first, so that the command, when it tries again, finds nobody there
            break
        stage = message.decode()
        if stage not in LIGHT:
            deque(imports, maxlen=0)
        importlib.import_module(f"stages.{stage}")  # which the child loads again, as `__main__`
        gc.freeze()  # what is there is shared with children, and their garbage collection does not touch it
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            listening.close()
            os.close(owner)
            _become(stage, streams, before, dvc)
            connection.send(json.dumps(os.getpid()).encode())
            _kept_open.append(connection)
            return f"stages.{stage}"
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for number in streams:
            os.close(number)
        _wait(pid, connection, owner, imports)
    os._exit(0)


_kept_open: list[socket.socket] = []
"""A child's connection to its command, which sees it close when the child ends, also where the warm process is gone."""


def _process_fd(name: str) -> int:
    """A file that can be read from once the process of this name has ended. Exits if it has."""
    with suppress(ProcessLookupError):
        number = os.pidfd_open(int(name.split(":")[1]))
        if named_is_alive(name):
            return number
    os._exit(0)


def _sources() -> dict[str, tuple[int, int]]:
    """Time and size of every source: a stage must be computed by the code that its fingerprint is of."""
    found = (file for package in ("pipeline", "stages") for file in (PROJECT / package).rglob("*.[pj][y2]"))
    return {str(file): (status.st_mtime_ns, status.st_size) for file in found if (status := file.stat())}


def _imports() -> Iterator[None]:
    """Import what stages share, also what they import late, in steps: while the first stage runs, and nobody waits."""
    import torch

    yield
    import torch._inductor.config  # noqa: F401 (for `torch.use_deterministic_algorithms`: almost a second)

    yield
    import rich.progress  # noqa: F401

    import pipeline.vision  # noqa: F401

    yield
    from pipeline.report import data_plots, lr_find_plot, pictures, score_plots, training_plots  # noqa: F401

    yield


def _become(stage: str, streams: list[int], before: _Dispositions, dvc: str) -> None:
    """Make this child what the command would be: its streams, its signals, its environment, and whom it works for."""
    for standard, number in enumerate(streams):
        os.dup2(number, standard)
        os.close(number)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    _restore(before)
    work_for(dvc)
    os.environ["DVC_STAGE"] = stage
    listen()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _ready(watched: list[Any], timeout_s: float | None = None) -> list[Any]:
    return select.select(watched, [], [], timeout_s)[0]


def _wait(pid: int, connection: socket.socket, owner: int, imports: Iterator[None]) -> None:
    """Wait for the child and tell its command how it ended; end the child if the command has."""
    child = os.pidfd_open(pid)
    watched = [child, connection, owner]
    for _ in imports:
        if _ready(watched, 0):
            break
    ready = _ready(watched)
    if owner in ready:
        os._exit(0)  # the child sees that, and stops where nothing is half done
    if child not in ready:
        os.kill(pid, signal.SIGKILL)
    os.close(child)
    _, status = os.waitpid(pid, 0)
    with connection, suppress(OSError):
        connection.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    module = serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
    sys.argv[:] = [module]
    sys.modules.pop(module)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
