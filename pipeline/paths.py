"""Well-known paths. DVC runs some experiments in a copy of the checkout; DVC_ROOT names the checkout itself."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
"""Where the code is."""

# Relative to the working directory, which is the checkout or DVC's temporary copy of it.
ARTIFACTS = Path("artifacts")
CONF = Path("conf")
PARAMS = Path("params.yaml")
STATE = Path(".unfreeze")
"""Scratch, locks, caches and timings, none of which is part of a result."""
HELD = Path("overrides.json")
"""What an applied experiment changed against `conf/`."""


def from_checkout(path: str) -> Path:
    """Resolve a path that a person typed: relative ones start at the checkout, also from a temporary copy of it."""
    return Path(os.environ.get("DVC_ROOT", ".")) / Path(path).expanduser()


def state_dir() -> Path:
    """`STATE` of the checkout, also from a temporary copy of it."""
    return from_checkout(str(STATE)).resolve()
