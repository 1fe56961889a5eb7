"""What else the machine does while something is measured, and when that is too much to conclude anything.

The processor time of all others is that of the whole machine, less that of the measured process and its descendants.
It needs Linux.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.model.compute import num_cores

REAPER = Path(__file__).with_name("reaper.py")
MOST_LOAD = 0.25
"""The highest load average (one minute), per core, with which a measurement may begin."""
MOST_OTHERS = 0.05
"""The largest share of all cores that others may use before and during a run."""
LOOK_S = 5.0
"""How long the machine is looked at before a run, in seconds."""


class FailedRunError(RuntimeError):
    """A measured program ended with an error."""


@dataclass(frozen=True)
class Watched:
    """What a program took, and what else the machine did."""

    wall_s: float
    cpu_s: float
    """User and system time, with all that it started, also what outlived it."""
    largest_mb: float
    """The largest resident set of one of its processes."""
    others_before: float
    """The share of all cores that others used just before."""
    others_during: float
    load_before: float
    """The load average of one minute. Of later runs it holds what the runs before them left."""


def run_watched(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> Watched:
    """Run `command`, its output into `log`. Raises FailedRunError if its exit status is not 0."""
    before, load_before = others_now(), os.getloadavg()[0]
    answer = log.with_suffix(".json")
    with log.open("wb") as output:
        busy = busy_seconds()
        through = [sys.executable, "-P", str(REAPER), str(answer), *command]
        subprocess.run(through, cwd=cwd, env=dict(env), stdout=output, stderr=subprocess.STDOUT, check=True)
        busy = busy_seconds() - busy
    took = json.loads(answer.read_text())
    if took["exit"]:
        raise FailedRunError(f"{command[0]} ended with {took['exit']}; the end of {log}:\n{_end(log)}")
    during = share_of_others(busy, took["cpu_s"], took["all_s"])
    return Watched(took["wall_s"], took["cpu_s"], took["largest_mb"], before, during, load_before)


def others_now() -> float:
    """The share of all cores that is in use while this process sleeps for `LOOK_S`."""
    began, busy = time.monotonic(), busy_seconds()
    time.sleep(LOOK_S)
    return share_of_others(busy_seconds() - busy, 0.0, time.monotonic() - began)


def share_of_others(busy_s: float, own_s: float, wall_s: float) -> float:
    """The share of all cores that others used in `wall_s` seconds, in which the machine was busy for `busy_s`."""
    return max(0.0, busy_s - own_s) / (wall_s * num_cores())


def busy_seconds(stat: str | None = None) -> float:
    """Seconds that all cores have been busy since the machine started, also for other guests of its host (steal)."""
    text = Path("/proc/stat").read_text() if stat is None else stat
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, text.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def refusals(*, load: float, others: Iterable[tuple[str, float]], cores: int) -> list[str]:
    """Why nothing can be concluded: a line for each limit that the load average or a share of others exceeds."""
    found = []
    if load > MOST_LOAD * cores:
        found.append(f"the load average was {load:.2f} at the start; at most {MOST_LOAD * cores:g} on {cores} cores")
    found += [
        f"others used {share:.1%} of the processor {when}; at most {MOST_OTHERS:.0%}"
        for when, share in others
        if share > MOST_OTHERS
    ]
    return found


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
