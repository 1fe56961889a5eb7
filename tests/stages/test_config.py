"""The config stage: what was typed reaches the stages or is refused, however a run is started."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from pipeline.console import say
from pipeline.harness.fingerprints import settings_of_views
from pipeline.harness.settle import settle
from pipeline.params import load_params, to_yaml
from pipeline.settings import SettingsError, read_settings
from stages.config import main
from tests.conftest import PROJECT, Compose

SAY = partial(say, "config")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    settle(is_experiment=False, say=SAY)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def run_experiment(compose_conf: Compose, *overrides: str) -> None:
    """What `dvc exp run -S` does: compose conf/ with overrides into params.yaml, then run the stage."""
    Path("params.yaml").write_text(to_yaml(compose_conf(*overrides)))
    settle(is_experiment=True, say=SAY)


def test_an_edit_of_conf_reaches_params_and_is_logged(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit(checkout / "conf" / "config.yaml", "lr_ratio: 3.0", "lr_ratio: 5.0")
    settle(is_experiment=False, say=SAY)
    assert load_params(Path("params.yaml"))["unfreeze"]["lr_ratio"] == 5.0
    assert "unfreeze.lr_ratio: 3.0 -> 5.0" in capfd.readouterr().err


def test_settling_twice_changes_nothing(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = [(checkout / f).read_bytes() for f in ("params.yaml", "overrides.json")]
    settle(is_experiment=False, say=SAY)
    assert [(checkout / f).read_bytes() for f in ("params.yaml", "overrides.json")] == before
    assert capfd.readouterr().err == ""


def test_an_experiment_is_kept_recorded_and_held(checkout: Path, compose_conf: Compose) -> None:
    run_experiment(compose_conf, "full_train.cycle_mult=3")
    assert json.loads((checkout / "overrides.json").read_text())["overrides"] == {"full_train.cycle_mult": 3}
    settle(is_experiment=False, say=SAY)  # the next plain `dvc repro`
    assert load_params(Path("params.yaml"))["full_train"]["cycle_mult"] == 3


def test_the_next_experiment_says_what_it_changed(
    checkout: Path, compose_conf: Compose, capfd: pytest.CaptureFixture[str]
) -> None:
    assert checkout.is_dir()
    run_experiment(compose_conf, "full_train.cycle_mult=3")
    capfd.readouterr()
    run_experiment(compose_conf, "full_train.cycle_mult=3", "seed=2")
    assert "changed: seed=2 (was 0)\n" in capfd.readouterr().err
    run_experiment(compose_conf, "seed=2")
    assert "changed: full_train.cycle_mult=2 (was 3)\n" in capfd.readouterr().err


def test_what_is_held_is_said_by_every_run_in_a_few_words(
    checkout: Path, compose_conf: Compose, capfd: pytest.CaptureFixture[str]
) -> None:
    assert checkout.is_dir()
    run_experiment(compose_conf, "experiment=photos", "data.root=my/pets")
    capfd.readouterr()
    settle(is_experiment=False, say=SAY)
    said = capfd.readouterr().err
    assert "held settings (pets, resnet34, 224 px): data.name=folder, data.root=my/pets, " in said
    assert "more in overrides.json" in said
    assert "`dvc exp run -S base=conf`" in said


def test_editing_conf_under_a_held_experiment_stops_and_names_both_ways(checkout: Path, compose_conf: Compose) -> None:
    run_experiment(compose_conf, "full_train.cycle_mult=3", "data.train_fraction=0.5")
    edit(checkout / "conf" / "config.yaml", "lr_ratio: 3.0", "lr_ratio: 5.0")
    params = (checkout / "params.yaml").read_bytes()
    with pytest.raises(SettingsError) as error:
        settle(is_experiment=False, say=SAY)
    assert "To keep both: `dvc exp run`." in str(error.value)
    assert "To drop the experiment's: `dvc exp run -S base=conf`" in str(error.value)
    assert (checkout / "params.yaml").read_bytes() == params
    run_experiment(compose_conf)  # what `base=conf` composes
    assert settle(is_experiment=False, say=SAY)["full_train"]["cycle_mult"] == 2


@pytest.mark.parametrize("held", [False, True])
def test_a_hand_edit_of_params_is_refused_not_lost(checkout: Path, compose_conf: Compose, held: bool) -> None:
    if held:
        run_experiment(compose_conf, "full_train.cycle_mult=3")
    edit(checkout / "params.yaml", "lr_ratio: 3.0", "lr_ratio: 7.0")
    with pytest.raises(SettingsError, match="by hand" if held else r"unfreeze\.lr_ratio=7\.0"):
        settle(is_experiment=False, say=SAY)
    assert "lr_ratio: 7.0" in (checkout / "params.yaml").read_text()


def test_a_typo_in_an_experiment_is_refused_with_the_nearest_key(checkout: Path, compose_conf: Compose) -> None:
    values = compose_conf()
    values["full_train"]["cycle_mlt"] = 3
    (checkout / "params.yaml").write_text(to_yaml(values))
    with pytest.raises(SettingsError, match=r"nearest: full_train\.cycle_mult"):
        settle(is_experiment=True, say=SAY)


def test_augmentation_is_an_input_of_precompute_only_where_it_has_views(compose_conf: Compose) -> None:
    def views(*overrides: str) -> dict[str, object]:
        return settings_of_views(read_settings(compose_conf(*overrides), source="x"))

    assert views() == views("augment.rotate_deg=30") == {}
    assert views("precompute.views=2", "augment.rotate_deg=30")["augment.rotate_deg"] == 30


def test_a_missing_folder_ends_with_status_1_and_one_line(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit(checkout / "conf" / "config.yaml", "- data: digits", "- data: folder")
    edit(checkout / "conf" / "data" / "folder.yaml", "root: null", "root: no/such/folder")
    assert main() == 1
    shown = [x for x in capfd.readouterr().err.splitlines() if "->" not in x]
    assert len(shown) == 1
    assert "data.root=no/such/folder is not a folder" in shown[0]


def test_params_yaml_says_that_it_is_generated_and_from_what(checkout: Path, compose_conf: Compose) -> None:
    run_experiment(compose_conf, "seed=3")
    first, second, *_ = (checkout / "params.yaml").read_text().splitlines()
    assert first.startswith("# Generated by the stage `config` from conf/")
    assert "dvc exp run -S" in second
