"""Settings: what is wrong is named, with the nearest thing that would be right."""

import ast
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from pipeline.params import flatten
from pipeline.settings import SettingsError, read_settings, with_environment
from tests.conftest import PROJECT, Compose


def change(values: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """`values` with the dotted `key` set."""
    section: dict[str, Any] = values
    *path, last = key.split(".")
    for part in path:
        section = section[part]
    section[last] = value
    return values


def refusal(compose_conf: Compose, changes: dict[str, object]) -> str:
    """What is said where these settings are refused."""
    values = compose_conf()
    for key, value in changes.items():
        values = change(values, key, value)
    with pytest.raises(SettingsError) as error:
        read_settings(values, source="x")
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("full_train.cycle_mlt", 2, "nearest: full_train.cycle_mult"),
        ("dta", {}, "dta is not a setting"),
        ("seed", "a", "seed='a'"),
        ("seed", -1, "seed=-1"),
        ("data.image_size", 3.5, "data.image_size=3.5"),
        ("data.image_size", "64", "data.image_size='64'"),
        ("data.fit", "zom", "did you mean zoom?"),
        ("data.root", 2024, "data.root=2024: a number is no text; put it in quotes"),
        ("data.batch_size", "auto", "data.batch_size='auto': input should be a valid integer or 'full'"),
        ("model.weights", None, "model.weights=null"),
        ("full_train.lr", "aut", "did you mean auto?"),
        ("full_train.lr", True, "full_train.lr=True"),
        ("full_train.batch_size", 0, "full_train.batch_size=0"),
        ("full_train.until_overfit", 1, "full_train.until_overfit=1"),
        ("model", "resnet18", "model must be a section"),
        ("data.split", {"valid": 0.5, "test": 0.5}, "nothing to train on"),
        ("lr_find_full.end_lr", 1e-6, "must be below lr_find_full.end_lr"),
        (
            "head_train.snapshots",
            "ensemble",
            "head_train.snapshots=ensemble must be 'none', 'best', 'cautious' or 'average'",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_fix(compose_conf: Compose, key: str, value: object, said: str) -> None:
    with pytest.raises(SettingsError, match=r"params\.yaml: ") as error:
        read_settings(change(compose_conf(), key, value), source="params.yaml")
    assert said in str(error.value)


def test_a_missing_setting_is_named(compose_conf: Compose) -> None:
    values = compose_conf()
    del values["unfreeze"]["lr_ratio"]
    with pytest.raises(SettingsError, match=r"unfreeze\.lr_ratio is missing"):
        read_settings(values, source="x")


def test_batch_norm_cannot_train_on_single_images(compose_conf: Compose) -> None:
    values = change(compose_conf(), "full_train.batch_size", 1)
    read_settings(values, source="x")
    with pytest.raises(SettingsError, match=r"needs unfreeze\.batch_norm=frozen"):
        read_settings(change(values, "unfreeze.batch_norm", "train"), source="x")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"full_train.schedule": "constant"},
            "full_train.cycle_mult=2 has no effect with full_train.schedule=constant",
        ),
        (
            {"head_train_augmented.schedule": "one_cycle"},
            "head_train_augmented.num_cycles=3 contradicts head_train_augmented.schedule=one_cycle",
        ),
        ({"full_train.image_size": [32, 64]}, "has 2 sizes for full_train.num_cycles=3 cycles"),
        ({"full_train.image_size": [32, 64, 4]}, "full_train.image_size"),
        ({"head_train.image_size": [32, 64]}, "head_train.image_size"),
        ({"unfreeze.schedule": "gradual", "unfreeze.num_groups": 5}, "set it to 4 or more, or unfreeze.schedule=all"),
    ],
)
def test_schedules_that_contradict_are_refused(compose_conf: Compose, changes: dict[str, object], said: str) -> None:
    assert said in refusal(compose_conf, changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unfreeze.lrs": [1e-5, 1e-4, 1e-3]}, "contradicts unfreeze.lr_ratio=3: set unfreeze.lr_ratio=null"),
        ({"unfreeze.lr_ratio": None}, "unfreeze.lr_ratio and unfreeze.lrs are both null"),
        (
            {"unfreeze.lr_ratio": None, "unfreeze.lrs": [1e-4, 1e-3]},
            "unfreeze.lrs=[0.0001, 0.001] has 2 rates for unfreeze.num_groups=3: give one for each",
        ),
        (
            {"unfreeze.lr_ratio": None, "unfreeze.lrs": [1e-5, 1e-4, 1e-3], "full_train.lr": 0.01},
            "unfreeze.lrs=[1e-05, 0.0001, 0.001] contradicts full_train.lr=0.01",
        ),
        ({"unfreeze.lr_ratio": None, "unfreeze.lrs": [0.0, 1e-4, 1e-3]}, "unfreeze.lrs=[0.0, 0.0001, 0.001]: input"),
        ({"unfreeze.lr_ratio": None, "unfreeze.lrs": 1e-3}, "unfreeze.lrs=0.001: input should be a valid array"),
        ({"full_train.optimizer": "adam"}, "full_train.optimizer=adam must be 'sgd', 'adamw' or 'auto'; did you mean"),
    ],
)
def test_rates_and_optimizers_that_contradict_are_refused(
    compose_conf: Compose, changes: dict[str, object], said: str
) -> None:
    assert said in refusal(compose_conf, changes)


@pytest.mark.parametrize(
    ("solver", "key", "value", "said"),
    [
        ("lbfgs", "num_cycles", 5, "num_cycles=5 has no effect with head_train.solver=lbfgs: set it to null, or"),
        ("lbfgs", "lr", "auto", "lr=auto has no effect with head_train.solver=lbfgs"),
        ("lbfgs", "snapshots", "none", "snapshots=none would keep the weakest decay of head_train.weight_decay=auto"),
        ("lbfgs", "weight_decay", -1, "weight_decay=-1"),
        ("lbfgs", "solver", "sdg", "solver=sdg must be 'lbfgs' or 'sgd'; did you mean sgd?"),
        ("sgd", "cycle_len", None, "cycle_len is missing: head_train.solver=sgd needs it; head_train=sgd chooses"),
        ("sgd", "weight_decay", "auto", "weight_decay=auto needs head_train.solver=lbfgs"),
        ("sgd", "schedule", "one_cycle", "num_cycles=2 contradicts head_train.schedule=one_cycle"),
    ],
)
def test_a_solver_of_the_head_has_its_own_settings(
    compose_conf: Compose, solver: str, key: str, value: object, said: str
) -> None:
    values = compose_conf(f"head_train={solver}")
    with pytest.raises(SettingsError) as error:
        read_settings(change(values, f"head_train.{key}", value), source="x")
    assert f"head_train.{said}" in str(error.value)


def test_one_decay_may_be_kept_without_a_choice(compose_conf: Compose) -> None:
    values = change(compose_conf(), "head_train.snapshots", "none")
    assert read_settings(change(values, "head_train.weight_decay", 0.01), source="x").head_train.snapshots == "none"


def test_a_size_for_each_cycle_is_read(compose_conf: Compose) -> None:
    settings = read_settings(change(compose_conf(), "full_train.image_size", [32, 48, 64]), source="x")
    assert settings.full_train.image_size == (32, 48, 64)


def test_environment_lies_over_runtime_and_typos_are_refused(
    compose_conf: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = read_settings(compose_conf(), source="x").runtime
    monkeypatch.setenv("UNFREEZE_THREADS", "3")
    assert with_environment(runtime).threads == 3
    monkeypatch.setenv("UNFREEZE_THREAD", "3")
    with pytest.raises(SettingsError, match="nearest: UNFREEZE_THREADS"):
        with_environment(runtime)


@pytest.mark.parametrize("text", ["2024", "cats: dogs", "off", "1e3", "[a]"])
def test_text_in_the_environment_stays_text(compose_conf: Compose, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_EXPERIMENT", text)
    assert with_environment(read_settings(compose_conf(), source="x").runtime).experiment == text


def test_a_device_by_its_number_is_answered_with_its_name(
    compose_conf: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = read_settings(compose_conf(), source="x").runtime
    monkeypatch.setenv("UNFREEZE_DEVICE", "1")
    with pytest.raises(SettingsError, match="device=1 must be auto, cpu, cuda, cuda:1 or mps"):
        with_environment(runtime)


@pytest.mark.parametrize("colour", ["blurple", "#12", "ffffff"])
def test_an_unknown_colour_is_refused_before_any_image_is_read(compose_conf: Compose, colour: str) -> None:
    assert compose_conf("data.background=#ffffff")["data"]["background"] == "#ffffff"
    with pytest.raises(SettingsError, match=f"data.background={colour} is no colour"):
        compose_conf(f"data.background={colour}")


def test_the_committed_params_are_what_conf_says(compose_conf: Compose) -> None:
    committed = OmegaConf.to_container(OmegaConf.load(PROJECT / "params.yaml"))
    assert committed == compose_conf()


def test_yaml_1_1_and_1_2_read_the_committed_params_alike() -> None:
    text = (PROJECT / "params.yaml").read_text()
    assert flatten(yaml.safe_load(text)) == flatten(OmegaConf.to_container(OmegaConf.create(text)))  # type: ignore[arg-type]


def test_the_module_holds_schema_and_checks_only() -> None:
    """It is part of no fingerprint, so nothing in it may compute what a stage's result depends on."""
    tree = ast.parse((PROJECT / "pipeline" / "settings.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert functions == {
        "read_settings",
        "_adapter",
        "with_environment",
        "all_keys",
        "nearest_key",
        "nearest_keys",
        "_closeness",
        "shown",
        "_from_text",
        "_read",
        "_check_plain",
        "_complaint",
        "_check_together",
        "_check_rates",
        "_check_weights",
        "_check_tta",
        "_check_head_train",
        "_check_schedules",
        "_check_rejection",
        "_check_publish",
        "_check_memory",
        "_check_epochs",
        "_check_passwords",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "pipeline.passwords" or not str(node.module).startswith(("pipeline", "stages"))
        if isinstance(node, ast.ClassDef):
            assert not [n for n in node.body if isinstance(n, ast.FunctionDef)], f"{node.name} computes something"
            defaults = [n for n in node.body if isinstance(n, ast.AnnAssign) and n.value is not None]
            assert not defaults, f"{node.name} has a default, which no hash would see"
