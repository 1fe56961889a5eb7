"""Threads or processes that read files: results come in order, and a file that takes too long is given up.

concurrent.futures cannot stop a task that has started, so a decoder that hangs would block the whole run.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

from pipeline.data.facts import Facts
from pipeline.stopping import shielded

LIMIT_S = 60.0
"""A photo of 100 million pixels takes three seconds. A file that takes this long hangs, or its drive is offline."""
TOO_LONG = "took longer than"
_AT_ONCE = 32
Look = Callable[[Path], Facts]


class Workers:
    """A pool of `count` threads or processes. If one hangs, a process is killed and a thread is abandoned."""

    def __init__(self, look: Look, count: int, *, processes: bool) -> None:
        self._look, self._processes = look, processes
        self._workers = [_Worker(look, process=processes) for _ in range(count)]

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()

    def look_at(self, paths: Sequence[Path]) -> Iterator[Facts]:
        """Yield the facts of each file, in order. Raises OSError if a process is killed, and whatever `look` raises."""
        to_give = deque(range(len(paths)))
        answers: dict[int, Facts] = {}
        for wanted in range(len(paths)):
            while wanted not in answers:
                for worker in self._workers:
                    if to_give and not worker.given:
                        worker.give([to_give.popleft() for _ in range(min(_AT_ONCE, len(to_give)))], paths)
                answers.update(self._wait(paths))
                for i, worker in enumerate(self._workers):
                    if worker.seconds_left() <= 0 and not worker.connection.poll():
                        answers[worker.given.popleft()] = Facts(problem=f"{TOO_LONG} {LIMIT_S:g} s to decode")
                        to_give.extendleft(reversed(worker.given))
                        worker.stop()
                        self._workers[i] = _Worker(self._look, process=self._processes)
            yield answers.pop(wanted)

    def _wait(self, paths: Sequence[Path]) -> dict[int, Facts]:
        """Wait for an answer, or until a file has taken too long; return all answers that have arrived."""
        busy = {worker.connection: worker for worker in self._workers if worker.given}
        seconds = max(0.0, min(worker.seconds_left() for worker in busy.values()))
        answers: dict[int, Facts] = {}
        for connection in wait(list(busy), None if seconds == math.inf else seconds):
            worker = busy[connection]  # type: ignore[index]
            try:
                answers.update(worker.answers())
            except EOFError:
                raise OSError(
                    f"the process that read {str(paths[worker.given[0]])!r} was killed, most likely because "
                    "memory ran out: set UNFREEZE_WORKERS to a smaller number and run again"
                ) from None
        return answers


class _Worker:
    """A thread or process that reads one file after another and sends each answer."""

    def __init__(self, look: Look, *, process: bool) -> None:
        self.connection, other_end = Pipe()
        self.given: deque[int] = deque()
        """Numbers of the files without an answer yet; the first is being read."""
        self._since = math.inf  # until the worker has started
        self._process: BaseProcess | None = None
        if process:
            self._process = get_context("spawn").Process(target=_serve, args=(other_end, look), daemon=True)
            with shielded():
                self._process.start()
            other_end.close()
        else:
            Thread(target=_serve, args=(other_end, look), daemon=True).start()

    def give(self, numbers: Sequence[int], paths: Sequence[Path]) -> None:
        """Send it these files. Call only when it has answered all others."""
        self.given.extend(numbers)
        with suppress(BrokenPipeError):  # the process is gone: `answers` raises
            self.connection.send([paths[i] for i in numbers])
        self._since = max(self._since, time.monotonic())

    def answers(self) -> Iterator[tuple[int, Facts]]:
        """Yield the answers that have arrived. Raises EOFError if the process is gone, and whatever it raised."""
        while self.connection.poll():
            answer = self.connection.recv()
            self._since = time.monotonic()
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                yield self.given.popleft(), answer

    def seconds_left(self) -> float:
        """Until the file that is being read has taken too long."""
        return self._since + LIMIT_S - time.monotonic() if self.given else math.inf

    def stop(self) -> None:
        self.connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()


def _serve(connection: Connection, look: Look) -> None:
    with connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(None)  # ready
        while True:
            for path in connection.recv():
                try:
                    answer: Facts | Exception = look(path)
                except Exception as error:
                    answer = error
                connection.send(answer)
