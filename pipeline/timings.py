"""How long the stages took, and when. Clock time is no part of a result, so it stands outside the stages' folders."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.kept import read_kept, write_kept

PAUSE_S = 60.0
"""Stages of one run follow each other within this many seconds."""


@dataclass(frozen=True, order=True)
class Span:
    """When something began and ended, in seconds since 1970."""

    started: float
    ended: float


def write_timings(state: Path, folder_digest: str, timings: Mapping[str, float], span: Span) -> None:
    """Keep the durations that were measured when a folder of this digest was made, and when that was."""
    file = _file(state, folder_digest)
    write_kept(file, {name: round(value, 2) for name, value in timings.items()})
    write_kept(_file(state, folder_digest, "spans"), [span.started, span.ended])


def read_timings(state: Path, folder_digest: str) -> dict[str, float]:
    """The durations that were measured when a folder of this digest was made; empty where they are not known."""
    timings: dict[str, float] = read_kept(_file(state, folder_digest)) or {}
    return timings


def read_span(state: Path, folder_digest: str) -> Span | None:
    """When a folder of this digest was made; None where that is not known."""
    span = read_kept(_file(state, folder_digest, "spans"))
    return None if span is None else Span(*span)


def span_of_run(spans: Iterable[Span], *, since: float | None) -> Span | None:
    """When a run began and ended that was started at `since` and consists of stages with these spans.

    A stage that ended before `since` comes from an earlier run. Where all do (the run only gathered them), and where
    `since` is not known, the run is the last stage and those before it, up to a pause of `PAUSE_S`. None without spans.
    """
    spans = sorted(spans, key=lambda span: span.ended)
    ran = [span for span in spans if since is not None and span.ended >= since]
    if since is not None and ran:
        return Span(min(since, *(span.started for span in ran)), ran[-1].ended)
    if not spans:
        return None
    began = spans[-1].started
    for later, earlier in pairwise(reversed(spans)):
        if later.started - earlier.ended > PAUSE_S:
            break
        began = min(began, earlier.started)
    return Span(began, spans[-1].ended)


def _file(state: Path, folder_digest: str, kind: str = "timings") -> Path:
    return state / kind / f"{folder_digest}.json"
