"""`dvc.yaml`, written from what the stages declare: `python -m stages.dag > dvc.yaml`.

Dependencies on code are read off the import statements, so that no edit goes unnoticed by DVC; a test holds the file
against this.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from pipeline.imports import imported_files
from pipeline.stage import Stage

ORDER = (
    "ingest",
    "augment_config",
    "precompute",
    "lr_find_head",
    "head_train",
    "head_train_augmented",
    "unfreeze",
    "lr_find_full",
    "full_train",
    "tta_evaluate",
)

HEADER = """\
# Written by `python -m stages.dag > dvc.yaml` from what the stages declare; a test compares the two.
"""


def load_stages() -> list[Stage]:
    """All stages that make an artifact folder, in order."""
    return [import_module(f"stages.{name}").STAGE for name in ORDER]


def render(root: Path) -> str:
    """The text of `dvc.yaml`."""
    stages = load_stages()
    blocks = [_config(root), *(_stage(stage, root) for stage in stages), _publish(stages, root)]
    return HEADER + "stages:\n" + "".join(blocks) + _shown(stages)


def _stage(stage: Stage, root: Path) -> str:
    lines = [f"  {stage.name}:", f"    cmd: python -m {stage.module}", "    deps:"]
    lines += [f"      - artifacts/{name}" for name in stage.inputs]
    lines += [f"      - {file}" for file in imported_files(stage.module, root)]
    lines += ["    params:", *(f"      - {key}" for key in stage.settings)]
    lines += ["    outs:", f"      - artifacts/{stage.name}"]
    return "\n".join(lines) + "\n"


def _config(root: Path) -> str:
    lines = ["  config:", "    cmd: python -m stages.config", "    always_changed: true", "    deps:", "      - conf"]
    lines += [f"      - {file}" for file in imported_files("stages.config", root)]
    lines += ["    outs:", "      - artifacts/config"]
    for file in ("params.yaml", "overrides.json"):
        lines += [f"      - {file}:", "          cache: false", "          persist: true"]
    return "\n".join(lines) + "\n"


def _publish(stages: list[Stage], root: Path) -> str:
    lines = ["  publish:", "    cmd: python -m stages.publish", "    always_changed: true", "    deps:"]
    lines += ["      - params.yaml", *(f"      - artifacts/{stage.name}" for stage in stages)]
    lines += [f"      - {file}" for file in imported_files("stages.publish", root)]
    return "\n".join(lines) + "\n"


def _shown(stages: list[Stage]) -> str:
    """What `dvc metrics show` and `dvc exp show` list."""
    trained: Iterator[Stage] = (s for s in stages if s.objective or s.name.startswith("lr_find"))
    files = [*(f"artifacts/{s.name}/metrics.json" for s in trained), "artifacts/tta_evaluate/metrics.json"]
    return "metrics:\n" + "".join(f"  - {file}\n" for file in dict.fromkeys(files))


if __name__ == "__main__":
    print(render(Path.cwd()), end="")
