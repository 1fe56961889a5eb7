"""The stages as a whole: `dvc.yaml`, written from what they declare, and a run of all of them without DVC.

`python -m stages.dag > dvc.yaml`; a test compares the two.
"""

from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.harness.stage import Places, Stage, execute
from pipeline.settings import read_settings, with_environment
from stages import STAGES
from stages.config import write_fingerprints

HEADER = """\
# Written by `python -m stages.dag > dvc.yaml` from what the stages declare; a test compares the two.
# `artifacts/config/code/<stage>.json` holds the digest of every file that the stage's code is made of, and
# `artifacts/<stage>/stage.json` that of every other file in the folder: DVC need not walk through it for each reader.
"""


def load_stages() -> list[Stage]:
    """All stages that make an artifact folder, in order."""
    return [import_module(f"stages.{name}").STAGE for name in STAGES]


def run_stages(params: Mapping[str, Any], root: Path, *, only: Collection[str] = STAGES) -> Path:
    """Run the stages, or `only` these of them, in order in this process, without DVC; returns the artifacts' folder."""
    settings, artifacts = read_settings(dict(params), source="params"), root / "artifacts"
    write_fingerprints(settings, artifacts / "config")
    runtime = with_environment(settings.runtime)
    for stage in (s for s in load_stages() if s.name in only):
        folders = {name.partition("/")[0]: artifacts / name.partition("/")[0] for name in stage.inputs}
        execute(stage, params, runtime, Places(folders, artifacts / stage.name, root / ".unfreeze"))
    return artifacts


def render() -> str:
    """The text of `dvc.yaml`."""
    stages = load_stages()
    return "".join([HEADER, "stages:\n", _config(), *(_stage(s) for s in stages), _publish(stages), _shown(stages)])


def _stage(stage: Stage) -> str:
    lines = [f"  {stage.name}:", f"    cmd: python -m {stage.module}", "    deps:"]
    lines += [f"      - artifacts/{name}" for name in (f"config/code/{stage.name}.json", *map(_input, stage.inputs))]
    lines += ["    params:", *(f"      - {key}" for key in stage.settings)]
    lines += ["    outs:", f"      - artifacts/{stage.name}"]
    return "\n".join(lines) + "\n"


def _input(name: str) -> str:
    """What a reader of the stage's folder, or of a single file of one, depends on."""
    return name if "/" in name else f"{name}/stage.json"


def _config() -> str:
    lines = ["  config:", "    cmd: python -m stages.config", "    always_changed: true"]
    lines += ["    deps:", "      - conf", "    outs:", "      - artifacts/config"]
    for file in ("params.yaml", "overrides.json"):
        lines += [f"      - {file}:", "          cache: false", "          persist: true"]
    return "\n".join(lines) + "\n"


def _publish(stages: list[Stage]) -> str:
    lines = ["  publish:", "    cmd: python -m stages.publish", "    always_changed: true", "    deps:"]
    lines += ["      - params.yaml", *(f"      - artifacts/{_input(stage.name)}" for stage in stages)]
    return "\n".join(lines) + "\n"


def _shown(stages: list[Stage]) -> str:
    """What `dvc metrics show` and `dvc exp show` list."""
    shown = [s.name for s in stages if s.objective or s.name.startswith("lr_find")]
    return "metrics:\n" + "".join(f"  - artifacts/{name}/metrics.json\n" for name in shown)


if __name__ == "__main__":
    print(render(), end="")
