"""Which of the project's own modules a module needs: read off its import statements, transitively.

DVC must know every file that a stage's result depends on, or it serves the result of old code from its cache. So the
`config` stage writes a fingerprint of each stage's code, which that stage depends on.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
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
                waiting += _imports(root / file)
    templates = {f.replace(".py", ".j2") for f in seen}
    return sorted(seen | {t for t in templates if (root / t).is_file()})


def code_fingerprint(module: str, root: Path) -> dict[str, str]:
    """The SHA-256 of every file that `module` is made of."""
    return {file: hashlib.sha256((root / file).read_bytes()).hexdigest() for file in imported_files(module, root)}


def _parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


@cache
def _file_of(module: str, root: Path) -> str | None:
    if module.partition(".")[0] not in PACKAGES:
        return None
    base = module.replace(".", "/")
    return next((f for f in (f"{base}.py", f"{base}/__init__.py") if (root / f).is_file()), None)


@cache
def _imports(file: Path) -> tuple[str, ...]:
    """Every module that a file may import, wherever the statement stands; `from a import b` may mean module a.b."""
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)
