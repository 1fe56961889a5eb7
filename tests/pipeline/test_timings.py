"""When a run began and ended, from when its stages did."""

import pytest

from pipeline.timings import Span, read_span, span_of_run, write_timings

HOUR = 3600.0


@pytest.mark.parametrize(
    ("spans", "since", "expected"),
    [
        ([], None, None),
        ([], 100.0, None),
        ([Span(101, 110), Span(112, 150)], 100.0, Span(100, 150)),
        # The first stage comes from a run of yesterday.
        ([Span(101, 110), Span(HOUR + 2, HOUR + 50)], HOUR, Span(HOUR, HOUR + 50)),
        # A stage was killed, and goes on in a later run.
        ([Span(101, 110), Span(112, HOUR + 50)], HOUR, Span(112, HOUR + 50)),
        # All stages come from one earlier run, the first from a still earlier one.
        ([Span(0, 10), Span(1000, 1040), Span(1042, 1100)], HOUR, Span(1000, 1100)),
        ([Span(0, 10), Span(1000, 1040), Span(1042, 1100)], None, Span(1000, 1100)),
    ],
)
def test_a_run_is_its_own_stages(spans: list[Span], since: float | None, expected: Span | None) -> None:
    assert span_of_run(spans, since=since) == expected


def test_a_span_is_kept_beside_the_timings(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = tmp_path_factory.mktemp("state")
    assert read_span(state, "d") is None
    write_timings(state, "d", {"seconds": 3.0}, Span(1.5, 4.5))
    assert read_span(state, "d") == Span(1.5, 4.5)
