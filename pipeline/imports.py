"""Which of the project's own modules a module needs: read off its import statements, transitively.

DVC must know every file that a stage's result depends on, or it serves the result of old code from its cache.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("pipeline", "stages")


def imported_files(module: str, root: Path) -> list[str]:
    """Files of this project that `module` is made of, its own included, relative to `root`, sorted.

    A template that bears a module's name (`html.j2` beside `html.py`) belongs to it.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        for needed in [name, *_parents(name)]:
            file = _file_of(needed, root)
            if file is not None and file not in seen:
                seen.add(file)
                waiting += list(_imports(root / file))
    templates = {f.replace(".py", ".j2") for f in seen}
    return sorted(seen | {t for t in templates if (root / t).is_file()})


def _parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _file_of(module: str, root: Path) -> str | None:
    if module.partition(".")[0] not in PACKAGES:
        return None
    base = module.replace(".", "/")
    return next((f for f in (f"{base}.py", f"{base}/__init__.py") if (root / f).is_file()), None)


def _imports(file: Path) -> Iterator[str]:
    """Every module that a file may import, wherever the statement stands; `from a import b` may mean module a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
