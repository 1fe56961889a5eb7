"""Where things lie. DVC runs some experiments in a temporary copy of the checkout, whose own place DVC_ROOT names."""

import os
from pathlib import Path


def from_checkout(path: str) -> Path:
    """A path that a person typed: relative ones start at the checkout, also from a temporary copy of it."""
    return Path(os.environ.get("DVC_ROOT", ".")) / Path(path).expanduser()


def state_dir() -> Path:
    """`.unfreeze/` of the checkout: scratch, locks and timings, none of which is part of a result."""
    return from_checkout(".unfreeze").resolve()
