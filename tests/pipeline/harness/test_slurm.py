"""How a job in Slurm is seen to have ended; `tests/reliability/test_slurm.py` does it with a real Slurm."""

import pytest

pytest.importorskip("submitit")

from pipeline.harness.slurm import QueueWatcher

QUEUE = "7|0|RUNNING\n7|1|COMPLETING\n8|N/A|PENDING\n9|4|RUNNING\n"
"""What `squeue --array --format=%F|%K|%T` prints; job 9 is another sweep's."""


def test_a_job_that_has_left_the_queue_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = [QUEUE.encode(), b""]
    monkeypatch.setattr(
        "subprocess.check_output", lambda command, **_: printed.pop(0) if command[0] == "squeue" else b""
    )
    watcher = QueueWatcher()
    for job in ("7_0", "7_1", "7_2", "8"):
        watcher.register_job(job)
    assert [watcher.is_done(job) for job in ("7_0", "7_1", "7_2", "8")] == [False, False, True, False]
    watcher.update()
    assert watcher.is_done("8", mode="cache")
    watcher.wait()
