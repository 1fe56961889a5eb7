"""The plugin that looks at `dvc exp run -S`, alone and within DVC."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.exceptions import DvcException
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath

from hydra_plugins.check_overrides import CheckOverrides, typed_overrides
from pipeline.harness.compose import compose
from tests.conftest import PROJECT


@pytest.fixture
def search_path() -> ConfigSearchPath:
    """The path on which DVC has Hydra search."""
    path = ConfigSearchPathImpl()
    path.append("main", f"file://{PROJECT / 'conf'}")
    return path


def test_every_spelling_of_the_flag_is_read() -> None:
    argv = ["dvc", "exp", "run", "-S", "a=1", "-Sb=2", "--set-param", "c=3", "--set-param=d=4", "-n", "x"]
    assert sorted(typed_overrides(argv)) == ["a=1", "b=2", "c=3", "d=4"]
    assert list(typed_overrides(["dvc", "exp", "run", "-S", "params.yaml:a=1"])) == ["a=1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-S", "full_train.cycle_mlt=2"], "nearest: full_train.cycle_mult"),
        (["-S", "data.root=2024"], """type `'data.root="2024"'`"""),
        (["full_train.lr=0.1"], "-S full_train.lr=0.1"),
        (["-S", "model=resnet50"], "`model=imagenet model.arch=resnet50`"),
    ],
)
def test_a_mistake_is_refused_with_what_to_type(
    words: list[str], said: str, search_path: ConfigSearchPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["dvc", "exp", "run", *words])
    with pytest.raises(DvcException) as error:
        CheckOverrides().manipulate_search_path(search_path)
    assert said in str(error.value)


def test_another_command_is_not_looked_at(search_path: ConfigSearchPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["python", "-S", "full_train.cycle_mlt=2"])
    CheckOverrides().manipulate_search_path(search_path)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository with the first stage of the pipeline, which holds an experiment on photos."""
    (tmp_path / "photos").mkdir()
    for folder in ("conf", "hydra_plugins", ".dvc"):
        shutil.copytree(
            PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("tmp", "cache", "*.local", "__pycache__")
        )
    (tmp_path / "overrides.json").write_text("{}")
    (tmp_path / "params.yaml").write_text("{}")
    # The config stage alone, without the fingerprints of code, which take time and are not what is tried here.
    settle = "from pipeline.harness.settle import settle; settle(is_experiment=True, say=print)"
    outs = [{name: {"cache": False, "persist": True}} for name in ("params.yaml", "overrides.json")]
    stages = {"config": {"cmd": f"{sys.executable} -c '{settle}'", "deps": ["conf"], "outs": outs}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / ".gitignore").write_text("photos\n__pycache__\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, env=environment())
    return tmp_path


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
    names = {f"GIT_{who}_{what}": "x@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**kept, **names, "PYTHONPATH": str(PROJECT), "COLUMNS": "200", "DVC_NO_ANALYTICS": "1"}


def dvc(checkout: Path, *words: str) -> str:
    command = [sys.executable, "-m", "dvc", "exp", "run", *words]
    done = subprocess.run(command, cwd=checkout, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_experiments_lie_over_each_other_in_the_workspace_and_in_the_queue(checkout: Path) -> None:
    photos = ("experiment=photos", "data.root='my photos'", "model.arch=squeezenet1_1")
    first = dvc(checkout, *(word for setting in photos for word in ("-S", setting)))
    assert "base: conf/" in first.splitlines()[0]
    held = json.loads((checkout / "overrides.json").read_text())["overrides"]
    assert held["model.arch"] == "squeezenet1_1"
    assert yaml.safe_load((checkout / "params.yaml").read_text()) == compose(photos, conf=PROJECT / "conf")

    queued = dvc(checkout, "--queue", "-S", "full_train.lr=0.01,0.02")
    base = "base: held settings (my photos, squeezenet1_1, 224 px)"
    assert [base in line for line in queued.splitlines()] == [True], "said first, and once"
    stash = ["git", "rev-list", "--walk-reflogs", "refs/exps/celery/stash"]
    revisions = subprocess.run(stash, cwd=checkout, capture_output=True, text=True, check=True).stdout.split()
    rates = []
    for revision in revisions:
        show = ["git", "show", f"{revision}:params.yaml"]
        params = yaml.safe_load(subprocess.run(show, cwd=checkout, capture_output=True, check=True).stdout)
        rates.append(params["full_train"]["lr"])
        assert params == compose([*photos, f"full_train.lr={rates[-1]}"], conf=PROJECT / "conf")
    assert sorted(rates) == [0.01, 0.02]

    again = dvc(checkout, "-S", "base=conf", "-S", "seed=1")
    assert "base: conf/" in again.splitlines()[0]
    assert json.loads((checkout / "overrides.json").read_text())["overrides"] == {"seed": 1}
