"""What tests of faults share: all stages, run on few pictures with a small network."""

from pathlib import Path

import pytest

from pipeline.harness.dag import run_stages
from stages.registry import ALL
from tests.conftest import TINY, Compose, Run

SMALL = (
    *TINY,
    "model.arch=squeezenet1_1",
    "model.weights=none",
    "lr_find_full.num_steps=20",
    "cross_validate.num_folds=2",
)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, pictures: Path, compose_conf: Compose) -> Run:
    """All stages, run in order."""
    params = compose_conf(*SMALL, f"data.root={pictures}")
    return Run(run_stages(ALL, params, tmp_path_factory.mktemp("small")), params)
