"""Backbones compared: the first steps as one job per architecture, and what it leaves for its row."""

from pathlib import Path

import pytest

from pipeline.files import read_json
from pipeline.harness.by_hand import run_job
from pipeline.model.weights_file import GLYPHS_DIR
from pipeline.settings import SettingsError
from stages.head import STAGES
from tests.conftest import TINY, Compose, Run

pytestmark = pytest.mark.xdist_group("recipe")
ARCHS = {"shufflenet_v2_x0_5": 1024, "squeezenet1_1": 512}


@pytest.mark.slow
def test_each_architecture_gets_its_own_features_scores_and_row(
    recipe: Run,
    tmp_path: Path,
    compose_conf: Compose,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(recipe.artifacts.parent)
    before = read_json(recipe.folder("config") / "weights.json")
    losses = []
    for arch, num_features in ARCHS.items():
        params = compose_conf(*TINY, f"data.root={pictures}", f"model.arch={arch}", "model.weights=none")
        objective = run_job(STAGES, params, tmp_path / arch, [f"model.arch={arch}"], name="head")
        metrics = {stage.name: read_json(tmp_path / arch / stage.name / "metrics.json") for stage in STAGES}
        scores = metrics["cross_validate"]
        assert scores["log_loss"] == objective
        assert scores["accuracy_low"] < scores["accuracy"] < scores["accuracy_high"]
        assert metrics["precompute"]["num_features"] == num_features
        assert metrics["head_train"]["valid_loss"] > 0
        assert read_json(tmp_path / arch / "config" / "weights.json")["arch"] == arch
        losses.append(objective)
    assert losses[0] != losses[1]
    assert read_json(recipe.folder("config") / "weights.json") == before
    assert before["arch"] == "resnet18"


def test_a_job_knows_its_own_weights_by_content(
    recipe: Run, tmp_path: Path, compose_conf: Compose, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.artifacts.parent)
    own = tmp_path / "own.safetensors"
    own.write_bytes((GLYPHS_DIR / "resnet18.safetensors").read_bytes())
    params = compose_conf(*TINY, f"data.root={pictures}", f"model.weights={own}")
    run_job(STAGES[:1], params, tmp_path / "job", [], name="precompute")
    inputs = {i["file"]: i["digest"] for i in read_json(tmp_path / "job" / "precompute" / "stage.json")["inputs"]}
    shipped = {i["file"]: i["digest"] for i in read_json(recipe.folder("precompute") / "stage.json")["inputs"]}
    assert inputs["views.json"] == shipped["views.json"]
    assert inputs["weights.json"] != shipped["weights.json"]


def test_other_images_are_refused_before_anything_is_written(
    recipe: Run, tmp_path: Path, compose_conf: Compose, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.artifacts.parent)
    params = compose_conf(*TINY, f"data.root={pictures}", "seed=1")
    with pytest.raises(SettingsError, match="seed=1 contradicts"):
        run_job(STAGES, params, tmp_path / "job", [], name="head")
    assert not (tmp_path / "job").exists()
