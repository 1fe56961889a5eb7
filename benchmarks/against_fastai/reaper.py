"""Runs a program, and waits for all that it starts, also for what it leaves behind: `python reaper.py FILE PROGRAM ...`

FILE gets a JSON object: `exit`, `wall_s` until the program ended, `all_s` until the last process that it had started
ended, `cpu_s` (user and system) of all of them, and `largest_mb`, the resident set of the largest one. A process whose
parent ends first is adopted (Linux' child subreaper), so that its time is not taken for that of another program.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Run the program that the command line names."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot adopt orphans: Linux 3.4 or later is needed")
    began = time.monotonic()
    process = subprocess.Popen(sys.argv[2:])
    found: dict[str, float] = {}
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:  # no process is left
            break
        if pid == process.pid:
            found = {"exit": os.waitstatus_to_exitcode(status), "wall_s": time.monotonic() - began}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found |= {"all_s": time.monotonic() - began, "cpu_s": used.ru_utime + used.ru_stime}
    Path(sys.argv[1]).write_text(json.dumps({**found, "largest_mb": used.ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
