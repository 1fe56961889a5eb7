"""Fingerprints of what a stage's result depends on beside its settings: its code, the images, the weights.

DVC must rerun a stage when its code has changed in meaning, or it serves the result of old code from its cache; and it
must not when only words have. So the `config` stage writes a fingerprint of each stage's code, which that stage depends
on: a digest for every file of this project that the code is made of.

A file's digest is of its meaning: of the syntax tree without docstrings, comments, type annotations that nothing reads
at run time, messages of errors that stop a run, and lines that are shown to a person. The schema of the settings is
left out (their values are hashed one by one, and its checks compute nothing), and so are the harness, the console and
tracking, which start, lock, publish, print and send. `FORMAT` stands for what the harness writes.
"""

import ast
import builtins
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

from pipeline.data.sources import fingerprint_source
from pipeline.files import digest, file_digest, write_json
from pipeline.harness.stage import FORMAT
from pipeline.model.weights_file import find_weights_file
from pipeline.params import flatten
from pipeline.paths import PROJECT
from pipeline.settings import Settings

PACKAGES = ("pipeline", "stages")
NOT_COMPUTING = (
    "pipeline/settings.py",
    "pipeline/console.py",
    "pipeline/harness/",
    "pipeline/tracking/",
    "stages/__init__.py",  # names of stages: one more changes none of the others
)
"""Files and folders that are part of no fingerprint, and are not searched for further imports."""

TELLING = ("say", "complain", "advance")
"""Calls of functions with these names, as statements of their own, show something to a person and compute nothing."""


def write_fingerprints(settings: Settings, folder: Path, stages: tuple[str, ...]) -> None:
    """Write into `folder` what shows that images, weights or the code of `stages` changed.

    Raises SettingsError or FileNotFoundError where the settings name images or weights that are not there.
    """
    data, weights = fingerprint_source(settings.data), fingerprint_weights(settings.model.arch, settings.model.weights)
    (folder / "code").mkdir(parents=True, exist_ok=True)
    write_json(folder / "data.json", data)
    write_json(folder / "weights.json", weights)
    write_json(folder / "views.json", settings_of_views(settings))
    for name in stages:
        write_json(folder / "code" / f"{name}.json", code_fingerprint(f"stages.{name}"))


def fingerprint_weights(arch: str, weights: str) -> dict[str, Any]:
    """What shows that the weights changed: for a file, its content."""
    if weights in ("none", "imagenet"):
        return {"arch": arch, "weights": weights}
    return {"arch": arch, "weights": weights, "sha256": file_digest(find_weights_file(arch, weights))}


def settings_of_views(settings: Settings) -> dict[str, Any]:
    """The settings that precomputed views depend on; none without views, so that augmentation then changes nothing."""
    return flatten({"augment": asdict(settings.augment)}) if settings.precompute.views else {}


def code_fingerprint(module: str, root: Path = PROJECT) -> dict[str, Any]:
    """The digest of the meaning of every file below `root` that computes something for `module`, and the format."""
    files = {file: _meaning_digest(root / file) for file in computing_files(module, root)}
    return {"format": FORMAT, "files": files}


def code_digest(module: str) -> str:
    """One digest of `code_fingerprint`."""
    return digest(code_fingerprint(module))


def computing_files(module: str, root: Path = PROJECT) -> list[str]:
    """Files below `root` that compute something for `module`, itself included, sorted.

    They are found by following import statements, wherever these stand, through all modules but `NOT_COMPUTING`. A
    template that bears a module's name (`html.j2` beside `html.py`) belongs to it.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        for needed in [name, *_parents(name)]:
            file = _file_of(needed, root)
            if file is not None and file not in seen and not file.startswith(NOT_COMPUTING):
                seen.add(file)
                waiting += _imports(root / file)
    templates = {f.replace(".py", ".j2") for f in seen}
    return sorted(seen | {t for t in templates if (root / t).is_file()})


def meaning(source: str) -> ast.Module:
    """The syntax tree of `source` without what changes no result."""
    tree = _Meaning().visit(ast.parse(source))
    assert isinstance(tree, ast.Module)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {name for node in ast.walk(tree) if isinstance(node, ast.Constant) for name in _words(node.value)}
    return _WithoutUnusedImports(used).visit(tree)  # type: ignore[no-any-return]


class _Meaning(ast.NodeTransformer):
    """Drops docstrings, annotations, messages of errors, and what is shown to a person."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return None if _is_telling(node.value) else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Annotations in the body of a class stay, because dataclasses read them."""
        read = [statement for statement in node.body if isinstance(statement, ast.AnnAssign)]
        others = {id(s): self.visit(s) for s in node.body if s not in read}
        node.body = [s for s in (others.get(id(s), s) for s in node.body) if s is not None]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """`x: int = 1` becomes `x = 1`, and `x: int` nothing."""
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else None

    def visit_If(self, node: ast.If) -> ast.AST | None:
        typing_only = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if typing_only else self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Keep the kind of an error that stops a run; errors of our own may be caught, and their text kept as data."""
        if isinstance(node.exc, ast.Call) and _stops_the_run(node.exc.func):
            node.exc = node.exc.func
        return self.generic_visit(node)


class _WithoutUnusedImports(ast.NodeTransformer):
    """Drops imports of names that only annotations used. Modules of this project are followed all the same."""

    def __init__(self, used: set[str]) -> None:
        self._used = used

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        node.names = [alias for alias in node.names if (alias.asname or alias.name) in self._used]
        return node if node.names else None


def _is_telling(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return False
    name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    return name in TELLING


def _stops_the_run(kind: ast.expr) -> bool:
    """Whether errors of this kind reach the user, who alone reads their text: those of Python, and SettingsError."""
    return isinstance(kind, ast.Name) and (kind.id == "SettingsError" or hasattr(builtins, kind.id))


def _words(value: object) -> Iterator[str]:
    """Names in a string: an annotation as text, or an entry of `__all__`."""
    if isinstance(value, str) and value.isidentifier():
        yield value


def _meaning_digest(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix != ".py":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(json.dumps(_plain(meaning(content.decode()))).encode()).hexdigest()


_IGNORED_FIELDS = ("ctx", "kind", "type_comment")


def _plain(node: object) -> Any:
    """A syntax tree as JSON, the same in every version of Python that parses it: empty fields are left out."""
    if isinstance(node, ast.AST):
        fields = [(n, v) for n, v in ast.iter_fields(node) if n not in _IGNORED_FIELDS and not _is_empty(v)]
        return [type(node).__name__, *([name, _plain(value)] for name, value in fields)]
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return [type(node).__name__, repr(node)]


def _is_empty(value: object) -> TypeGuard[None]:
    return value is None or value == []


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
