"""The direction in which data and imports flow, as the design has it."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import PROJECT

SOURCES = sorted(p for package in ("pipeline", "stages") for p in (PROJECT / package).rglob("*.py"))

# Each room may import from those after it in the list, and from the modules at the top of pipeline/.
MAY_IMPORT = {
    "stages": {"harness", "comparison", "deployment", "evaluation", "learning", "model", "data", "report", "tracking"},
    "deployment": {"evaluation", "model", "data", "tracking"},
    "harness": {"comparison", "report", "tracking", "model", "data"},
    "comparison": {"evaluation", "report", "data"},
    "evaluation": {"model", "data"},
    "learning": {"evaluation", "model", "data"},
    "model": {"data"},
    "report": {"data"},
    "data": set(),
    "tracking": set(),
}
TOP = {"cli": {"harness", "comparison", "deployment", "tracking"}, "__main__": {"harness", "comparison"}}
"""Starters at the top of pipeline/; the other modules there import no room."""
KNOWS = {
    "hydra": {"pipeline/harness/compose.py", "pipeline/harness/typed.py"},
    "dvc": {"pipeline/harness/dvc_lock.py", "pipeline/harness/revisions.py"},
    "mlflow": {"pipeline/tracking/store.py", "pipeline/tracking/page.py", "pipeline/tracking/models.py"},
    "rich": {"pipeline/console.py", "pipeline/harness/warm.py"},
    "optuna": {"pipeline/harness/search.py", "pipeline/harness/pruning.py"},
    "submitit": {"pipeline/harness/slurm.py"},
    "timm": {"pipeline/model/timm_backbone.py", "pipeline/model/timm_weights.py"},
    "huggingface_hub": {"pipeline/model/timm_weights.py"},
    "matplotlib": {"pipeline/report"},
}
"""Libraries that are known in one place only."""


OF_SEVERAL = {f"stages.{name}" for name in ("registry", "head", "tail", "all_layers", "__main__")}
"""The modules of stages/ that know several of them."""


def _name(file: Path) -> str:
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(file): file for file in SOURCES}


@cache
def nodes(file: Path) -> list[ast.AST]:
    return [*ast.walk(ast.parse(file.read_text()))]


@cache
def imports(file: Path) -> list[str]:
    found = []
    for node in nodes(file):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(inner if inner in MODULES else str(node.module))
    return found


def _room(module: str) -> str:
    first, *rest = module.split(".")
    return "stages" if first == "stages" else rest[0] if rest and f"pipeline.{rest[0]}" in MODULES else ""


def _is_room(module: str) -> bool:
    return _room(module) in MAY_IMPORT


def test_rooms_import_downwards_only() -> None:
    wrong = []
    for name, file in MODULES.items():
        allowed = MAY_IMPORT[_room(name)] | {_room(name)} if _is_room(name) else TOP.get(_room(name), set())
        wrong += [f"{name} -> {i}" for i in imports(file) if i in MODULES and _is_room(i) and _room(i) not in allowed]
    assert wrong == []


def test_there_is_no_circle() -> None:
    graph = {name: {i for i in imports(file) if i in MODULES and i != name} for name, file in MODULES.items()}
    while leaves := [name for name, needed in graph.items() if not needed]:
        for leaf in leaves:
            del graph[leaf]
        for needed in graph.values():
            needed -= set(leaves)
    assert graph == {}, "modules that import each other, and what imports them"


def test_stages_meet_in_files_only_and_what_computes_draws_nothing() -> None:
    for name, file in MODULES.items():
        if _room(name) == "stages" and name not in OF_SEVERAL:
            imported = set(imports(file))
            assert {i for i in imported if i.startswith("stages")} <= {"stages", "stages.registry"}, name
            assert name == "stages.report" or not {i for i in imported if i.startswith("pipeline.report")}, name


@pytest.mark.parametrize("library", KNOWS)
def test_a_library_is_known_in_one_place(library: str) -> None:
    using = {
        file.relative_to(PROJECT).as_posix()
        for file in SOURCES
        if any(i == library or i.startswith(f"{library}.") for i in imports(file))
    }
    assert using
    assert [f for f in using if not f.startswith(tuple(KNOWS[library]))] == []


def test_no_import_hides_in_a_string() -> None:
    """Fingerprints of code follow import statements. What starts processes is part of none, and imports by name."""
    names = {
        node.id if isinstance(node, ast.Name) else node.attr
        for file in SOURCES
        if file not in (PROJECT / "pipeline/harness/warm.py", PROJECT / "pipeline/harness/helper.py")
        for node in nodes(file)
        if isinstance(node, ast.Name | ast.Attribute)
    }
    assert not names & {"import_module", "__import__", "run_module"}


WRITES = ("write_text", "write_bytes", "touch")
ALSO_WRITE = {
    "pipeline/files.py": "the one place",
    "pipeline/journal.py": "appends lines while a stage runs",
    "pipeline/model/growing.py": "appends batches to a large file",
}


def test_files_are_written_in_one_place() -> None:
    found = []
    for file in SOURCES:
        if file.relative_to(PROJECT).as_posix() in ALSO_WRITE:
            continue
        for node in nodes(file):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                mode = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                opens = node.func.attr == "open" and any(m and set(m) <= set("wab+rtx") - {"r"} for m in mode)
                if opens or node.func.attr in WRITES:
                    found.append(f"{file.relative_to(PROJECT)}:{node.lineno}: {ast.unparse(node.func)}")
    assert found == []


def test_what_is_printed_cannot_write_to_the_terminal() -> None:
    """Names of files and classes come from anywhere: what is printed goes through `printable`, or is our own text."""
    found = []
    for file in (f for f in SOURCES if f.name != "console.py" and f != PROJECT / "stages/__main__.py"):
        for node in nodes(file):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                texts = [ast.unparse(a) for a in node.args if not isinstance(a, ast.Constant)]
                found += [f"{file.relative_to(PROJECT)}:{node.lineno}: {t}" for t in texts if t[:10] != "printable("]
    assert found == []
