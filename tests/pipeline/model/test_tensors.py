"""Tensors that are read lie in their file, and nothing that is done to them gets into it."""

from pathlib import Path

import torch

from pipeline.files import file_digest
from pipeline.model.growing import GrowingTensor
from pipeline.model.tensors import read_tensors

ROWS, FEATURES = 20_000, 512


def own_bytes() -> int:
    """Memory of this process that is not mapped from files."""
    rows = dict(row.split(":") for row in Path("/proc/self/status").read_text().splitlines())
    return int(rows["RssAnon"].split()[0]) * 1024


def test_activations_are_mapped(tmp_path: Path) -> None:
    path, targets = tmp_path / "a.safetensors", torch.arange(ROWS)
    shape = (1, ROWS, FEATURES)
    with GrowingTensor(path, "activations", shape, before={"targets": targets}, checkpoint_s=100) as growing:
        for start in range(0, ROWS, 4000):
            growing.append(targets[start : start + 4000, None].float().expand(-1, FEATURES))
    read_tensors(path)  # what is imported and kept once
    before, digest = own_bytes(), file_digest(path)
    stored = read_tensors(path)
    rows = torch.randperm(ROWS)[:1000]
    assert torch.equal(stored["activations"][0][rows][:, 7], rows.float())
    assert own_bytes() - before < 0.2 * path.stat().st_size
    stored["activations"].zero_()  # copies what is changed
    assert own_bytes() - before > 0.8 * path.stat().st_size
    assert file_digest(path) == digest
    path.unlink()
    assert stored["targets"][-1] == ROWS - 1
