"""Reading files in threads and processes: in order, even if some fail, and without those that hang."""

import os
import time
from pathlib import Path

import pytest

from pipeline.data import workers
from pipeline.data.facts import Facts
from pipeline.data.workers import Workers
from pipeline.stopping import SIGNALS

PATHS = [Path(f"{i}.jpg") for i in range(100)]
HANGING = {"41.jpg", "99.jpg"}


def look(path: Path) -> Facts:
    """Stands in for a decoder."""
    if path.name in HANGING:
        time.sleep(20)
    if path.name == "kills.jpg":
        os.kill(os.getpid(), 9)
    if path.name == "stops.jpg":
        for number in SIGNALS:
            os.kill(os.getpid(), number)
    if path.name == "raises.jpg":
        raise MemoryError("no more")
    return Facts(file_sha256=path.name)


@pytest.mark.parametrize("count", [1, 3])
def test_what_hangs_is_given_up_by_name_and_the_rest_is_read(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LIMIT_S", 0.2)
    pool = Workers(look, count, processes=False)
    found = list(pool.look_at(PATHS))
    pool.close()
    assert [f.problem for f in found] == [
        "took longer than 0.2 s to decode" if p.name in HANGING else "" for p in PATHS
    ]
    assert all(f.file_sha256 == p.name for f, p in zip(found, PATHS, strict=True) if not f.problem)


def test_a_process_that_hangs_is_replaced_and_one_that_dies_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LIMIT_S", 0.2)
    pool = Workers(look, 1, processes=True)
    hung = pool._workers[0]._process
    assert hung is not None
    [hanging, good] = pool.look_at([PATHS[41], PATHS[1]])
    assert (hanging.problem, good.file_sha256) == ("took longer than 0.2 s to decode", "1.jpg")
    with pytest.raises(ValueError, match="closed"):  # the process was stopped
        hung.is_alive()
    with pytest.raises(OSError, match=r"the process that read 'kills\.jpg' was killed"):
        list(pool.look_at([PATHS[2], Path("kills.jpg")]))
    pool.close()


def test_what_the_terminal_sends_stops_no_process() -> None:
    pool = Workers(look, 1, processes=True)
    assert [facts.problem for facts in pool.look_at([Path("stops.jpg"), PATHS[1]])] == ["", ""]
    pool.close()


def test_what_a_worker_raises_is_raised() -> None:
    pool = Workers(look, 1, processes=False)
    with pytest.raises(MemoryError, match="no more"):
        list(pool.look_at([PATHS[1], Path("raises.jpg")]))
    pool.close()
