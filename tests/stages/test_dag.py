"""`dvc.yaml` says what the stages declare."""

from pathlib import Path

import yaml

from pipeline.settings import all_keys
from stages.dag import ORDER, load_stages, render
from tests.conftest import PROJECT


def test_the_file_is_what_the_stages_declare() -> None:
    assert (PROJECT / "dvc.yaml").read_text() == render(PROJECT), "run `python -m stages.dag > dvc.yaml`"


def test_every_stage_reads_only_what_came_before() -> None:
    seen = {"config"}
    for stage in load_stages():
        assert {name.partition("/")[0] for name in stage.inputs} <= seen
        assert set(stage.settings) <= set(all_keys())
        seen.add(stage.name)


def test_one_name_per_stage_everywhere() -> None:
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == ["config", *ORDER, "publish"]
    for name in ORDER:
        assert (PROJECT / "stages" / f"{name}.py").is_file()
        assert stages[name]["cmd"] == f"python -m stages.{name}"
        assert stages[name]["outs"] == [f"artifacts/{name}"]


def test_every_dependency_exists_or_is_made() -> None:
    for stage in yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"].values():
        for dep in stage["deps"]:
            assert dep.startswith("artifacts/") or dep == "params.yaml" or Path(PROJECT / dep).exists()


def test_no_setting_is_read_by_nobody() -> None:
    declared = {d for stage in load_stages() for d in stage.settings}
    leaves = [k for k in all_keys() if not any(o.startswith(f"{k}.") for o in all_keys())]
    unread = [k for k in leaves if not k.startswith("runtime.") and not _covered(k, declared)]
    assert unread == []


def _covered(key: str, declared: set[str]) -> bool:
    return any(key == d or key.startswith(f"{d}.") for d in declared)
