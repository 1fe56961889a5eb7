"""A signal that asks a run to stop is obeyed between two batches, where what is done can be kept.

The handler only notes the signal, so it never breaks a step or a file in two. What takes long asks at its boundaries;
every `Bar.advance` does. A second signal ends the process at once: nothing is lost but what came after the last
checkpoint.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AGAIN_S = 1.0
"""A signal that arrives sooner after the first is the same one, sent to a process and to its group."""


class Stopped(KeyboardInterrupt):
    """The run was asked to stop. `kept` says how far the work is that was kept, if the stage knows."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.status = 128 + number
        """The exit status by convention: 130 for Ctrl-C, 143 for SIGTERM."""
        self.kept: str | None = None


@dataclass
class _State:
    """What this process knows of signals."""

    number: int | None = None
    """The first that arrived."""
    since: float = 0.0
    listener: int | None = None
    """The process that listens: its forks do not."""
    parent: int | None = None
    """Who waits for this process, if it must not outlive them."""
    waits: bool = False
    """Whether a wish is obeyed only where other processes know of it."""
    before: dict[int, object] = field(default_factory=dict)
    """The handlers that were replaced."""


_state = _State()


def listen(*, with_parent: bool = False) -> None:
    """Note the signals that ask for a stop, from now on. Those that are ignored stay ignored, as `nohup` wants it.

    With `with_parent`, and always under DVC, the parent's end counts as a signal too: what nobody waits for any more
    stops.
    """
    with_parent = with_parent or "DVC_STAGE" in os.environ
    _state.listener, _state.parent = os.getpid(), os.getppid() if with_parent else None
    for number in SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, _note):
            _state.before[number] = signal.signal(number, _note)


def forget() -> None:
    """Undo `listen`, and forget what was asked for."""
    for number, handler in _state.before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
    _state.__init__()  # type: ignore[misc]


def ask(number: int) -> None:
    """Ask this process to stop, as the signal `number` does."""
    _state.listener, _state.number, _state.since = os.getpid(), number, time.monotonic()


def requested() -> int | None:
    """The signal that this process is to obey, or None."""
    return None if _state.waits else noted()


def noted() -> int | None:
    """The signal by which this process was asked to stop, or None."""
    if _state.listener != os.getpid():
        return None
    if _state.number is None and _state.parent not in (None, os.getppid()):
        ask(signal.SIGTERM)
    return _state.number


def raise_if_requested() -> None:
    """Raise Stopped if this process was asked to stop. Call it where nothing is half done."""
    number = requested()
    if number is not None:
        raise Stopped(number)


def hold_back(waits: bool) -> None:
    """Only note signals, from now on: processes that compute together obey them at the same point; see `obey`."""
    _state.waits = waits


def obey(number: int) -> None:
    """Obey, from now on, what one of several processes was asked for."""
    hold_back(False)
    ask(number)


@contextmanager
def interrupting() -> Iterator[None]:
    """Obey a signal that asks for a stop at once in the block, which only waits for other processes. Raises Stopped."""

    def stop(number: int, _frame: object) -> None:
        ask(number)
        raise Stopped(number)

    raise_if_requested()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listened = {number: handler for number, handler in before.items() if handler is _note}
    for number in listened:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in listened.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Processes that are started in the block never get such a signal, for example from the terminal.

    Their parent ends them.
    """
    resource_tracker.ensure_running()  # it starts with the first process, and would let these signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _note(number: int, _frame: object) -> None:
    if _state.number is None:
        ask(number)
        # Not `print`: the signal may have interrupted one.
        os.write(2, b"  stopping: the running step is finished and kept; a second signal ends at once\n")
    elif time.monotonic() - _state.since > AGAIN_S:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
