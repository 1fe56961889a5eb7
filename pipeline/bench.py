"""Where a piece of work is done: the name and seed that it draws by, and the places that it writes to."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.journal import Journal


@dataclass(frozen=True)
class Bench:
    """What training and finding need of whoever runs them."""

    name: str
    """The stage's; with `seed` it decides every random draw."""
    seed: int
    out: Path
    """For results."""
    scratch: Path
    """Survives a kill."""
    journal: Journal
    checkpoint_s: float
    """Most seconds of work that a kill can cost."""
