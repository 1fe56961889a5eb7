"""A run of all stages on an architecture of timm, with weights as its download leaves them, up to predictions."""

import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.deployment.predict import main as predict
from pipeline.files import read_json
from pipeline.harness.dag import run_stages
from pipeline.model.card import load_card
from pipeline.model.tensors import save_tensors
from pipeline.model.timm_weights import FILE
from pipeline.report.lines import summary
from stages.registry import ALL
from tests.conftest import TINY, Compose, Run

timm = pytest.importorskip("timm")
pytestmark = [pytest.mark.xdist_group("timm"), pytest.mark.slow]
ARCH = "timm/test_vit.r160_in1k"


@pytest.fixture(scope="module")
def run(pictures: Path, compose_conf: Compose, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All stages, with random weights in the place of the downloaded ones."""
    root = tmp_path_factory.mktemp("timm")
    snapshot = root / "hub" / "models--timm--test_vit.r160_in1k" / "snapshots" / "1234abcd"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    torch.manual_seed(0)
    save_tensors(timm.create_model("test_vit").state_dict(), snapshot / FILE)
    changes = ["model=timm", f"model.arch={ARCH}", "model.weights=pretrained"]
    quick = ["head_train_augmented.num_cycles=1", "full_train.num_cycles=1", "lr_find_full.num_steps=20"]
    params = compose_conf(*TINY, *changes, *quick, f"data.root={pictures}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root / "hub"))
        only = {stage.name for stage in ALL} - {"cross_validate", "report"}
        artifacts = run_stages(ALL, params, root, only=only)
    shutil.rmtree(root / "hub")  # no later stage, and no prediction, fetches weights
    return Run(artifacts, params)


def test_what_timm_says_reaches_the_images_the_card_and_the_row(run: Run) -> None:
    config = timm.get_pretrained_cfg("test_vit.r160_in1k")
    card = load_card(run.folder("tta_evaluate") / "model")
    assert (card.normalisation.mean, card.normalisation.std) == (config.mean, config.std)
    assert card.licence == config.license == "apache-2.0"
    assert card.weights == "https://huggingface.co/timm/test_vit.r160_in1k at revision 1234abcd"
    policy = yaml.safe_load((run.folder("tta_evaluate") / "model" / "policy.yaml").read_text())
    assert policy["framing"]["interpolation"] == config.interpolation == "bicubic"
    assert run.metrics("precompute")["head_begins"] == "what the weights' own 1000 classes say of ours"
    said = f"weights from {card.weights}, licence: apache-2.0"
    assert said in summary("precompute", {"precompute": run.folder("precompute")}, {})
    assert read_json(run.folder("unfreeze") / "plan.json")["optimizer"] == "adamw"


def test_the_model_folder_predicts_and_says_what_is_missing_where_timm_is(
    run: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(run.folder("tta_evaluate") / "model"), str(pictures / "bars" / "01.png")]
    assert predict(arguments) == 0
    answer = capsys.readouterr().out
    assert "01.png" in answer
    assert any(name in answer.rpartition("01.png")[2] for name in ("bars", "dots", "plain"))

    def missing(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr("pipeline.model.timm_name.version", missing)
    assert predict(arguments) == 1
    assert f"model.arch={ARCH} needs timm, which is not installed: `pip install" in capsys.readouterr().err
