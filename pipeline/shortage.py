"""When memory runs out: how that is recognised, and how much there is. Loads without torch."""

import os
import re
import resource
from pathlib import Path

_SIGNS = ("allocate memory", "out of memory", "not enough memory")
"""What the errors of torch's allocators say: of the processor, of CUDA and of MPS."""
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_ASKED = re.compile(rf"(?:tried to allocate) ([\d.]+) ({'|'.join(_UNITS)})", re.IGNORECASE)
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


class ShortOfMemoryError(ValueError):
    """Memory ran out; the message says with which setting it would do."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's own, or one of torch's."""
    is_of_torch = isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    return isinstance(error, MemoryError) or is_of_torch


def asked_bytes(error: BaseException) -> int | None:
    """How much memory was asked for in vain, if the error says it."""
    found = _ASKED.search(str(error))
    return None if found is None else int(float(found[1]) * _UNITS[found[2]])


def free_bytes() -> int | None:
    """How much memory this process can still get; None where the system does not tell."""
    limits = [_available(), _left_in_container(), _left_to_process()]
    return min((limit for limit in limits if limit is not None), default=None)


def readable(count: float) -> str:
    """Bytes as people read them: `1.5 GiB`."""
    unit = "GiB" if count >= 2**30 else "MiB"
    return f"{count / _UNITS[unit]:.1f} {unit}"


def _available() -> int | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])


def _left_in_container() -> int | None:
    try:
        return int(_LIMIT.read_text(encoding="ascii")) - int(_USED.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no limit is the word `max`
        return None


def _left_to_process() -> int | None:
    """What `ulimit -v` leaves."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))
