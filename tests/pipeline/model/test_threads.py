"""How many threads compute: one where there is little, and the number that was set everywhere else."""

from pathlib import Path

import pytest
import torch

from pipeline.model.compute import FEW_BYTES, threads_for


@pytest.mark.parametrize(("size", "expected"), [(FEW_BYTES - 1, 1), (FEW_BYTES, 2)])
def test_little_is_computed_by_one_thread(size: int, expected: int, tmp_path: Path) -> None:
    file = tmp_path / "activations"
    with file.open("wb") as stream:
        stream.truncate(size)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threads_for(file):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
