"""What a report says of a run that none of its folders holds: when, from which code, how long, and after which run.

All of it may differ between two equal runs, so it is handed in, and stands in the report alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Before:
    """The run before, compared with this one."""

    date: str
    accuracy: float
    """Its share of correct answers, 0..1."""
    change: float | None
    """By how much more of the images that both have answered are correct now; None if they share none."""
    p: float | None
    """McNemar's exact test of that change."""
    num_images: int
    """Images that both have answered."""
    changed: Sequence[str]
    """The settings that differ, as `key: old -> new`."""


@dataclass(frozen=True)
class Facts:
    """The circumstances of a run; everything may be missing."""

    date: str = ""
    commit: str = ""
    """Of the code, with what is not committed."""
    is_dirty: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Taken by each stage, also where its result came from an earlier run."""
    changed: Sequence[str] = ()
    """`key=value` of the settings that differ from `conf/`."""
    reproduce: Sequence[str] = ()
    """Commands that make this run again."""
    predict: Sequence[str] = ()
    """Commands that use its model."""
    before: Before | None = None


def duration(seconds: float) -> str:
    """`34 s`, `12 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
