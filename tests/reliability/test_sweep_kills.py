"""A sweep and a search that are killed at random moments end in the same tables and bytes.

`python -m tests.reliability.kill_sweeps` does it ten times for each, also with joblib.
"""

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.reliability.kill_sweeps import Rounds
from tests.reliability.sweeps import make_checkout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sweep", "search"])
def test_after_kills_the_same_command_ends_in_the_same_bytes(small: Run, tmp_path: Path, kind: str) -> None:
    make_checkout(small, tmp_path)
    rounds = Rounds(tmp_path, kind)
    assert len(rounds.expected) > 5, rounds.said
    assert rounds.run(seed=1)
