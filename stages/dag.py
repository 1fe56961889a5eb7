"""`dvc.yaml`, written from what the stages declare: `python -m stages.dag > dvc.yaml`. A test compares the two."""

from importlib import import_module

from pipeline.stage import Stage
from stages.config import STAGES

HEADER = """\
# Written by `python -m stages.dag > dvc.yaml` from what the stages declare; a test compares the two.
# `artifacts/config/code/<stage>.json` holds the digest of every file that the stage's code is made of.
"""


def load_stages() -> list[Stage]:
    """All stages that make an artifact folder, in order."""
    return [import_module(f"stages.{name}").STAGE for name in STAGES]


def render() -> str:
    """The text of `dvc.yaml`."""
    stages = load_stages()
    return "".join([HEADER, "stages:\n", _config(), *(_stage(s) for s in stages), _publish(stages), _shown(stages)])


def _stage(stage: Stage) -> str:
    lines = [f"  {stage.name}:", f"    cmd: python -m {stage.module}", "    deps:"]
    lines += [f"      - artifacts/{name}" for name in (f"config/code/{stage.name}.json", *stage.inputs)]
    lines += ["    params:", *(f"      - {key}" for key in stage.settings)]
    lines += ["    outs:", f"      - artifacts/{stage.name}"]
    return "\n".join(lines) + "\n"


def _config() -> str:
    lines = ["  config:", "    cmd: python -m stages.config", "    always_changed: true"]
    lines += ["    deps:", "      - conf", "    outs:", "      - artifacts/config"]
    for file in ("params.yaml", "overrides.json"):
        lines += [f"      - {file}:", "          cache: false", "          persist: true"]
    return "\n".join(lines) + "\n"


def _publish(stages: list[Stage]) -> str:
    lines = ["  publish:", "    cmd: python -m stages.publish", "    always_changed: true", "    deps:"]
    lines += ["      - params.yaml", *(f"      - artifacts/{stage.name}" for stage in stages)]
    return "\n".join(lines) + "\n"


def _shown(stages: list[Stage]) -> str:
    """What `dvc metrics show` and `dvc exp show` list."""
    shown = [s.name for s in stages if s.objective or s.name.startswith("lr_find")]
    return "metrics:\n" + "".join(f"  - artifacts/{name}/metrics.json\n" for name in shown)


if __name__ == "__main__":
    print(render(), end="")
