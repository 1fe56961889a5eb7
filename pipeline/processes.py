"""Whether other processes are alive."""

import os
from collections.abc import Callable


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    return _answers(os.kill, pid)


def group_is_alive(group: int) -> bool:
    """Whether any process of a process group runs."""
    return _answers(os.killpg, group)


def _answers(send: Callable[[int, int], None], target: int) -> bool:
    try:
        send(target, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True
