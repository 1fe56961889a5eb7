"""Composition: every shipped file is valid, and every override reaches the settings or is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.harness.compose import compose, run_app
from pipeline.harness.settle import conf_digest
from pipeline.settings import SettingsError, all_keys
from tests.conftest import PROJECT, Compose

CONF = PROJECT / "conf"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A copy of `conf/` in a checkout that holds no experiment."""
    return Path(shutil.copytree(CONF, tmp_path / "checkout" / "conf"))


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda f: f"{f.parent.name}={f.stem}")
def test_every_shipped_file_composes(compose_conf: Compose, file: Path) -> None:
    group = file.parent.name
    if (group, file.stem) == ("launch", "ray"):
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    needed = ["data.root=photos"] if file.stem in ("folder", "csv", "shards", "photos") else []
    needed += ["data.margin=0.0"] if file.stem in ("side_on", "top_down") else []  # random crops leave no margin
    needed += ["augment=side_on", "data.margin=0.0"] if file.stem == "flip" else []
    values = compose_conf(f"{group}={file.stem}", *needed)
    assert set(values) == {k for k in all_keys() if "." not in k}


def test_the_photo_experiment_stands_for_four_choices_and_each_can_be_made_otherwise(compose_conf: Compose) -> None:
    groups = {"data": "folder", "model": "imagenet", "augment": "side_on", "tta_evaluate": "sliding_window"}
    for changed in ({}, {"augment": "top_down"}, {"tta_evaluate": "flip"}, {"data": "csv"}):
        spelled_out = [f"{group}={name}" for group, name in (groups | changed).items()]
        beside_it = [f"{group}={name}" for group, name in changed.items()]
        assert compose_conf("experiment=photos", "data.root=photos", *beside_it) == compose_conf(
            "data.root=photos", *spelled_out
        )


def test_experiments_can_be_combined(compose_conf: Compose) -> None:
    both = compose_conf("experiment=[photos,quick]", "data.root=photos")
    assert both["data"]["train_fraction"] == compose_conf("experiment=quick")["data"]["train_fraction"] < 1
    assert both["model"]["weights"] == "imagenet"


def test_an_unknown_group_file_is_named(compose_conf: Compose) -> None:
    with pytest.raises(SettingsError, match="digits"):
        compose_conf("data=digit")


def test_a_typo_inside_conf_is_named(tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    file = conf / "config.yaml"
    file.write_text(file.read_text().replace("lr_ratio: 3.0", "lr_ration: 3.0"))
    with pytest.raises(SettingsError, match=r"unfreeze\.lr_ration is not a setting; nearest: unfreeze\.lr_ratio"):
        compose(conf=conf)


def test_conf_digest_notices_any_edit(tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    before = conf_digest(conf)
    (conf / "data" / "digits.yaml").write_text((conf / "data" / "digits.yaml").read_text() + "# note\n")
    assert conf_digest(conf) != before


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("full_train.cycle_len=0", "full_train.cycle_len=0: input should be greater"),
        ("full_train.image_size=[64,96]", "2 sizes for full_train.num_cycles=3"),
        ("full_train.cycle_lenn=1", "nearest: full_train.cycle_len"),
    ],
)
def test_a_bad_setting_typed_to_a_hydra_app_is_named_in_one_line(
    typed: str, said: str, conf: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(*_: object) -> float:
        raise AssertionError("the job must not start")

    monkeypatch.setattr("sys.argv", ["app", typed, f"hydra.run.dir={conf.parent}"])

    assert not run_app(job, name="app", conf=conf)
    *before, line = capfd.readouterr().err.splitlines()
    assert said in line
    assert all("base: conf/" in other for other in before)


def test_arrays_of_rates_can_be_swept(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def job(params: dict[str, Any], _: Path, overrides: list[str]) -> float:
        assert compose(overrides, conf=conf) == params  # DVC composes them again from what the job was given
        seen.append((params["unfreeze"]["lr_ratio"], params["unfreeze"]["lrs"]))
        return 0.5

    typed = ["unfreeze.lr_ratio=null", "unfreeze.lrs=[1e-5,1e-4,1e-3],[1e-4,1e-3,1e-2]"]
    monkeypatch.setattr("sys.argv", ["app", "-m", *typed, f"hydra.sweep.dir={conf.parent}"])
    assert run_app(job, name="app", conf=conf)
    assert seen == [(None, [1e-5, 1e-4, 1e-3]), (None, [1e-4, 1e-3, 1e-2])]


def test_an_app_says_whether_its_job_came_through(tmp_path: Path, conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def job(params: dict[str, Any], folder: Path, overrides: list[str]) -> float:
        seen.append((params["seed"], folder, overrides))
        return 0.5

    monkeypatch.setattr("sys.argv", ["app", "seed=7", f"hydra.run.dir={tmp_path}"])

    assert run_app(job, name="app", conf=conf)
    assert seen == [(7, tmp_path, ["seed=7"])]
