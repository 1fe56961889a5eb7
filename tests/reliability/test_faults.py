"""Every stage, killed or with a failing disk at some of its steps on the disk: then the same bytes. `make torture` does
it at every step."""

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.reliability.faults import BROKEN, NO_ROOM, STAGES, Fault, Lab, spread

pytestmark = [pytest.mark.xdist_group("small"), pytest.mark.slow]


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_stage_whose_resume_is_killed_too_ends_in_the_same_bytes(
    small: Run, tmp_path: Path, name: str
) -> None:
    lab = Lab(name, small.artifacts, small.params, tmp_path)
    steps = lab.run().steps
    assert lab.is_right()
    for at in spread(4, steps):
        lab.clear()
        assert lab.run(Fault(at)).status == -9, at
        lab.run(Fault(max(1, at // 2)))
        ended = lab.run()
        assert ended.status == 0, (at, ended.said)
        assert lab.is_right(), at


@pytest.mark.parametrize("error", [NO_ROOM, BROKEN])
@pytest.mark.parametrize("name", STAGES)
def test_a_disk_that_fails_gives_one_clear_error_and_then_the_same_bytes(
    small: Run, tmp_path: Path, name: str, error: int
) -> None:
    lab = Lab(name, small.artifacts, small.params, tmp_path)
    for at in spread(3, lab.run().steps):
        lab.clear()
        ended = lab.run(Fault(at, error))
        assert ended.status in (0, 1), (at, ended.said)  # 0: what failed was no part of the result
        if ended.status:
            assert str(tmp_path) in ended.said, "the error names the file"
        assert lab.run().status == 0, at
        assert lab.is_right(), at
