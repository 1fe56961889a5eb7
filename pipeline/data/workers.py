"""Threads or processes that look at files: answers in order, and a file that takes too long is given up.

concurrent.futures cannot stop a task that has begun: a decoder that hangs would hold the whole run.
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

LIMIT_S = 60.0
"""A photo of 100 million pixels takes three seconds; what needs so long hangs, or lies on a drive that is away."""
TOO_LONG = "took longer than"
_AT_ONCE = 32
Look = Callable[[Path], Facts]


class Workers:
    """So many threads or processes; a process that is given up is stopped, a thread left behind."""

    def __init__(self, look: Look, count: int, *, processes: bool) -> None:
        self._look, self._processes = look, processes
        self._workers = [_Worker(look, process=processes) for _ in range(count)]

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()

    def look_at(self, paths: Sequence[Path]) -> Iterator[Facts]:
        """Yield the facts of each file, in order. Raises OSError where a process was killed."""
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
        """The answers that are there, as soon as there is one or a file has taken too long."""
        busy = {worker.connection: worker for worker in self._workers if worker.given}
        seconds = max(0.0, min(worker.seconds_left() for worker in busy.values()))
        answers: dict[int, Facts] = {}
        for connection in wait(list(busy), None if seconds == math.inf else seconds):
            worker = busy[connection]  # type: ignore[index]
            try:
                answers.update(worker.answers())
            except EOFError:
                raise OSError(
                    f"the process that read {str(paths[worker.given[0]])!r} was killed, most likely for want of "
                    "memory: set UNFREEZE_WORKERS to a smaller number, and run again"
                ) from None
        return answers


class _Worker:
    """A thread or process that looks at one file after another and sends each answer."""

    def __init__(self, look: Look, *, process: bool) -> None:
        self.connection, other_end = Pipe()
        self.given: deque[int] = deque()
        """Numbers of the files not yet answered; the first is being looked at."""
        self._since = math.inf  # until it has started
        self._process: BaseProcess | None = None
        if process:
            self._process = get_context("spawn").Process(target=_serve, args=(other_end, look), daemon=True)
            self._process.start()
            other_end.close()
        else:
            Thread(target=_serve, args=(other_end, look), daemon=True).start()

    def give(self, numbers: Sequence[int], paths: Sequence[Path]) -> None:
        """Let it look at these; only when it has answered all others."""
        self.given.extend(numbers)
        with suppress(BrokenPipeError):  # it is gone, as `answers` will find
            self.connection.send([paths[i] for i in numbers])
        self._since = max(self._since, time.monotonic())

    def answers(self) -> Iterator[tuple[int, Facts]]:
        """What has arrived. Raises EOFError where the process is gone, and whatever it raised."""
        while self.connection.poll():
            answer = self.connection.recv()
            self._since = time.monotonic()
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                yield self.given.popleft(), answer

    def seconds_left(self) -> float:
        return self._since + LIMIT_S - time.monotonic() if self.given else math.inf

    def stop(self) -> None:
        self.connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()


def _serve(connection: Connection, look: Look) -> None:
    with connection, suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        connection.send(None)  # ready
        while True:
            for path in connection.recv():
                try:
                    answer: Facts | Exception = look(path)
                except Exception as error:
                    answer = error
                connection.send(answer)
