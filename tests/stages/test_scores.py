"""What DVC's own views show: numbers and points, as DVC reads them."""

import json
import math
from pathlib import Path

import pytest
import yaml

from pipeline.harness.dag import METRICS, PLOTS
from stages.scores import headline, main, mean_sweep
from tests.conftest import PROJECT, Run

pytestmark = pytest.mark.xdist_group("recipe")


@pytest.fixture
def written(recipe: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working copy of a finished run, with the numbers and the points."""
    monkeypatch.chdir(recipe.artifacts.parent)
    assert main() == 0
    return recipe.artifacts.parent


def test_a_dozen_numbers_are_those_of_the_stages(written: Path, recipe: Run) -> None:
    numbers = json.loads((written / METRICS).read_text())
    assert 12 <= len(numbers) <= 16
    assert all(isinstance(value, int | float) for value in numbers.values())
    test = recipe.metrics("tta_evaluate")["test"]
    assert numbers["accuracy"] == test["plain"]["accuracy"]
    assert numbers["accuracy_tta"] == test["tta"]["accuracy"]
    assert numbers["valid_loss"] == recipe.metrics("full_train")["valid_loss"]
    assert numbers["lr_full"] == recipe.metrics("lr_find_full")["lr"]
    assert next(iter(numbers)) == "accuracy", "the first column"


def test_without_test_images_there_is_no_accuracy_of_them(recipe: Run, tmp_path: Path) -> None:
    for stage in ("ingest", "cross_validate", "lr_find_head", "lr_find_full", "full_train", "tta_evaluate"):
        metrics = {k: v for k, v in recipe.metrics(stage).items() if k != "test"}
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "metrics.json").write_text(json.dumps(metrics))
    numbers = headline(tmp_path)
    assert "accuracy" not in numbers
    assert numbers["valid_accuracy"] == recipe.metrics("full_train")["valid_accuracy"]


def test_every_plot_that_dvc_draws_has_its_fields(written: Path, recipe: Run) -> None:
    shown = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["plots"]
    assert len(shown) >= 4
    for plot in (plot for entry in shown for plot in entry.values()):
        for file, fields in plot["y"].items():
            names = {plot["x"], *([fields] if isinstance(fields, str) else fields)}
            if file.endswith(".csv"):
                header = (written / file).read_text().splitlines()[0]
                assert names <= set(header.split(","))
            else:
                points = json.loads((written / file).read_text())
                assert len(points) > 1
                assert all(isinstance(point[name], int | float) for point in points for name in names)
    ends = json.loads((recipe.folder("full_train") / "cycles.json").read_text())["ends"]
    assert [p["valid_loss"] for p in json.loads((written / PLOTS / "full_train.json").read_text())] == [
        end["valid_loss"] for end in ends
    ]


def test_a_sweep_is_the_mean_of_its_repeats_and_leaves_out_what_is_not_finite() -> None:
    rows = [("0.1", "2.0"), ("0.01", "1.0"), ("0.1", "4.0"), ("0.01", "1.0"), ("1.0", "inf"), ("10.0", "")]
    points = mean_sweep({"lr": lr, "smoothed_loss": loss} for lr, loss in rows)
    assert [point["loss"] for point in points] == [1.0, 3.0]
    assert math.isclose(points[0]["log10_lr"], -2)


def test_a_missing_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main() == 1
    assert "metrics.json" in capfd.readouterr().err
