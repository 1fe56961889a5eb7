"""A growing file: loads as safetensors, and resumes after a kill from what was flushed to disk."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.model.growing import GrowingTensor

BATCHES = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 3, 4, 3)]
TARGETS = torch.arange(7)


def grow(path: Path, checkpoint_s: float = 1e9) -> GrowingTensor:
    return GrowingTensor(path, "rows", (2, 7, 3), before={"targets": TARGETS}, checkpoint_s=checkpoint_s)


def test_it_is_the_file_that_safetensors_would_have_written(tmp_path: Path) -> None:
    with grow(tmp_path / "a") as rows:
        for batch in BATCHES:
            rows.append(batch)
    loaded = load_file(tmp_path / "a")
    assert torch.equal(loaded["rows"], torch.cat(BATCHES).view(2, 7, 3))
    assert torch.equal(loaded["targets"], TARGETS)
    save_file(loaded, tmp_path / "b")
    again = load_file(tmp_path / "b")
    assert all(torch.equal(loaded[n], again[n]) for n in ("rows", "targets"))


@pytest.mark.parametrize("num_written", range(5))
@pytest.mark.parametrize("num_flushed", range(5))
def test_a_killed_file_resumes_from_what_was_flushed(tmp_path: Path, num_flushed: int, num_written: int) -> None:
    first = grow(tmp_path / "a")
    for i, batch in enumerate(BATCHES[:num_written]):
        if i == num_flushed:
            first.flush()
        first.append(batch)
    first._file.close()  # the kill: the file has more than was counted
    kept = num_flushed if num_flushed < num_written else 0

    with grow(tmp_path / "a") as second:
        assert second.num_batches == kept
        for batch in BATCHES[kept:]:
            second.append(batch)
    assert torch.equal(load_file(tmp_path / "a")["rows"], torch.cat(BATCHES).view(2, 7, 3))


def test_it_flushes_as_often_as_asked(tmp_path: Path) -> None:
    first = grow(tmp_path / "a", checkpoint_s=0)
    first.append(BATCHES[0])
    first._file.close()
    second = grow(tmp_path / "a")
    assert second.num_batches == 1
    second._file.close()


def test_too_few_rows_are_a_bug_and_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="of"), grow(tmp_path / "a") as rows:
        rows.append(BATCHES[0])
