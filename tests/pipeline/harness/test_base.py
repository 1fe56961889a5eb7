"""What typed settings lie over: what is held, or conf/; and it is said first."""

import json
import shutil
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.console import say
from pipeline.harness.base import describe, read_held
from pipeline.harness.compose import compose, run_app
from pipeline.harness.settle import settle
from pipeline.params import to_yaml
from pipeline.settings import SettingsError
from tests.conftest import PROJECT, Compose

PHOTOS = ("experiment=photos", "data.root=pets/photos", "model.arch=squeezenet1_1", "full_train.cycle_mult=1")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that holds an experiment on photos."""
    folder = tmp_path_factory.mktemp("experiment")
    shutil.copytree(PROJECT / "conf", folder / "conf")
    with chdir(folder):
        Path("params.yaml").write_text(to_yaml(compose(PHOTOS, conf=PROJECT / "conf")))
        settle(is_experiment=True, say=partial(say, "config"))
    return folder


@pytest.fixture
def held(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder is such a checkout."""
    shutil.copytree(experiment, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_of(monkeypatch: pytest.MonkeyPatch, *typed: str) -> list[dict[str, Any]]:
    """The settings of the jobs of a Hydra app."""
    seen: list[dict[str, Any]] = []

    def job(params: dict[str, Any], *_: object) -> float:
        seen.append(params)
        return 0.0

    monkeypatch.setattr("sys.argv", ["app", *typed, "hydra.run.dir=out", "hydra.sweep.dir=out"])
    assert run_app(job, name="app")
    return seen


def test_jobs_start_from_what_is_held_and_say_it_first(
    held: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], compose_conf: Compose
) -> None:
    assert held.is_dir()
    capfd.readouterr()
    jobs = settings_of(monkeypatch, "-m", "full_train.cycle_len=1,2")
    first, *_ = capfd.readouterr().err.splitlines()
    assert "base: held settings (photos, squeezenet1_1, 224 px)" in first
    assert "base=conf" in first
    assert jobs == [compose_conf(*PHOTOS, f"full_train.cycle_len={n}") for n in (1, 2)]


def test_conf_is_started_from_where_it_is_named(
    held: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], compose_conf: Compose
) -> None:
    assert held.is_dir()
    capfd.readouterr()
    assert settings_of(monkeypatch, "base=conf", "seed=3") == [compose_conf("seed=3")]
    assert "base: conf/\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("typed", "spelled_out"),
    [
        (["model=imagenet"], [*PHOTOS[:2], "full_train.cycle_mult=1"]),  # the held architecture is gone
        (["model.arch=resnet50"], [*PHOTOS, "model.arch=resnet50"]),
        (["augment=top_down"], [*PHOTOS, "augment=top_down"]),
        (["data=csv", "data.root=t.csv"], [*PHOTOS, "data=csv", "data.root=t.csv"]),
        (["experiment=quick"], ["experiment=[photos,quick]", *PHOTOS[1:]]),
        (["experiment=photos", "data.root=b"], ["experiment=photos", "data.root=b", "full_train.cycle_mult=1"]),
        (["full_train.cycle_mult=2"], PHOTOS[:3]),  # a value as conf/ has it wins too
    ],
)
def test_what_was_typed_last_wins_and_a_group_replaces_what_it_holds(
    held: Path, monkeypatch: pytest.MonkeyPatch, compose_conf: Compose, typed: list[str], spelled_out: list[str]
) -> None:
    assert held.is_dir()
    assert settings_of(monkeypatch, *typed) == [compose_conf(*spelled_out)]


def test_without_an_experiment_the_base_is_conf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], compose_conf: Compose
) -> None:
    shutil.copytree(PROJECT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    settle(is_experiment=False, say=partial(say, "config"))
    assert settings_of(monkeypatch, "seed=5") == [compose_conf("seed=5")]
    assert "base: conf/ (digits, resnet18, 32 px)" in capfd.readouterr().err


def test_a_hand_edit_is_not_started_from_nor_dropped(held: Path) -> None:
    file = held / "params.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(SettingsError, match="by hand while it holds an experiment"):
        read_held()


def test_what_a_failed_experiment_composed_is_not_held(held: Path, compose_conf: Compose) -> None:
    """DVC writes the file before a run; where that stops at once, the next one starts from what was held before."""
    (held / "params.yaml").write_text(to_yaml(compose_conf("seed=9")))
    assert read_held() == json.loads((held / "overrides.json").read_text())["overrides"]
    with pytest.raises(SettingsError, match="an experiment that failed"):
        settle(is_experiment=False, say=partial(say, "config"))


def test_text_with_a_dollar_stays_text(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads((held / "overrides.json").read_text())
    record["overrides"]["data.root"] = "a${b}"
    (held / "overrides.json").write_text(json.dumps(record))
    (job,) = settings_of(monkeypatch, "seed=1")
    assert job["data"]["root"] == "a${b}"


def test_a_set_of_torchvision_is_named(tmp_path: Path) -> None:
    values = compose(["data=cifar10"], conf=PROJECT / "conf")
    (tmp_path / "params.yaml").write_text(to_yaml(values))
    (tmp_path / "overrides.json").write_text(json.dumps({"overrides": {"data.dataset": "CIFAR10"}}))
    assert describe(tmp_path, held=True) == "held settings (CIFAR10, resnet18, 32 px)"
