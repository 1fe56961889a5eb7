"""Fingerprints of what a stage's result depends on beside its settings: its code, the images, the weights.

DVC must rerun a stage when its code has changed in meaning, or it serves the result of old code from its cache; and it
must not when only words have. So the `config` stage writes a fingerprint of each stage's code, which that stage depends
on: a digest for every file of this project that the code is made of.

A file's digest is of its meaning: of the syntax tree without docstrings, comments, type annotations that nothing reads
at run time, messages of errors that stop a run, and lines that are shown to a person. The schema of the settings is
left out (their values are hashed one by one, and its checks compute nothing), and so are the harness, the console and
tracking, which start, lock, publish, print and send, and what only stops a run: signals, a lack of memory, NaN.
`FORMAT` stands for what the harness writes.
"""

import ast
import builtins
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline.console import progress_bar
from pipeline.files import digest, file_digest, write_json
from pipeline.harness.data_fingerprint import CONTENTS, fingerprint_source
from pipeline.harness.stage import FORMAT
from pipeline.kept import read_kept, write_kept
from pipeline.model.timm_name import is_timm, timm_version
from pipeline.model.weights_file import find_weights_file
from pipeline.params import flatten
from pipeline.paths import PROJECT, state_dir
from pipeline.settings import Settings

PACKAGES = ("pipeline", "stages")
NOT_COMPUTING = (
    "pipeline/settings.py",
    "pipeline/console.py",
    "pipeline/harness/",
    "pipeline/tracking/",
    "stages/__init__.py",  # names of stages: one more changes none of the others
    # What stops a run, and changes no result:
    "pipeline/numbers.py",
    "pipeline/shortage.py",
    "pipeline/stopping.py",
    "pipeline/learning/soundness.py",
    "pipeline/model/finite.py",
    "pipeline/model/memory.py",
)
"""Files and folders that are part of no fingerprint, and are not searched for further imports."""

TELLING = ("say", "complain", "advance")
"""Calls of functions with these names, as statements of their own, show something to a person and compute nothing."""

READ_BY_USERS = ("SettingsError", "NumbersError", "NotFiniteError", "ShortOfMemoryError")
"""Errors of our own whose text is shown, and never becomes a part of a result."""


def write_fingerprints(settings: Settings, folder: Path, stages: tuple[str, ...]) -> None:
    """Write into `folder` what shows that images, weights or the code of `stages` changed.

    Raises SettingsError or FileNotFoundError where the settings name images or weights that are not there.
    """
    data = fingerprint_source(settings.data, kept=state_dir() / CONTENTS, progress=partial(progress_bar, "config"))
    (folder / "code").mkdir(parents=True, exist_ok=True)
    write_model_fingerprints(settings, folder)
    write_json(folder / "data.json", data)
    for name in stages:
        write_json(folder / "code" / f"{name}.json", code_fingerprint(f"stages.{name}"))


def write_model_fingerprints(settings: Settings, folder: Path) -> None:
    """Write into `folder` what `precompute` reads of it. Raises FileNotFoundError or ValueError for missing weights."""
    weights = fingerprint_weights(settings.model.arch, settings.model.weights)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "weights.json", weights)
    write_json(folder / "views.json", settings_of_views(settings))


def fingerprint_weights(arch: str, weights: str) -> dict[str, Any]:
    """What shows that the weights changed: for a file, its content; for an architecture of timm, timm's version."""
    named = {"arch": arch, "weights": weights} | ({"timm": timm_version(arch)} if is_timm(arch) else {})
    if weights in ("none", "imagenet", "pretrained"):
        return named
    return named | {"sha256": file_digest(find_weights_file(arch, weights))}


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
                waiting += read_code((root / file).read_bytes()).modules
    templates = {f.replace(".py", ".j2") for f in seen}
    return sorted(seen | {t for t in templates if (root / t).is_file()})


@dataclass(frozen=True)
class Code:
    """What is known of a module's source."""

    meaning: str
    """Digest of what it computes."""
    modules: tuple[str, ...]
    """Every module that it may import, wherever the statement stands; `from a import b` may mean module a.b."""


@cache
def read_code(source: bytes) -> Code:
    """Read the meaning of `source`: its syntax tree without what changes no result.

    It is the same in every version of Python that can parse it, because empty fields are left out.
    """
    name = hashlib.sha256(source).hexdigest()
    if name not in _known:
        _known[name] = _read_code(source)
    meaning, modules = _read[name] = _known[name]
    return Code(meaning, tuple(modules))


_Codes = dict[str, tuple[str, list[str]]]
_known: _Codes = {}
"""What is known of sources, by their digests."""
_read: _Codes = {}
"""The part of it that this process has asked for."""


def recall_code(state: Path) -> None:
    """Take over what was kept of sources, so that they are not parsed again; `state` is `.unfreeze/`."""
    kept = read_kept(state / _KEPT)
    if isinstance(kept, dict) and kept.get("reader") == _reader():
        _known.update(kept["codes"])


def keep_code(state: Path) -> None:
    """Keep what this process has read of sources, all of them, for `recall_code`."""
    if _read.keys() != _known.keys() or not (state / _KEPT).exists():
        write_kept(state / _KEPT, {"reader": _reader(), "codes": _read})


_KEPT = "code.json"


def _reader() -> str:
    """What the reading of a source depends on beside the source."""
    return f"{sys.version} {file_digest(Path(__file__))}"


def _read_code(source: bytes) -> tuple[str, list[str]]:
    writer = _CodeWriter()
    writer.add(ast.parse(source))
    # Imports of names that only annotations use are left out; modules of this project are followed all the same.
    imports = (line for line, name in writer.imported if name in writer.used)
    text = "\0".join([*writer.words, *imports])
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest(), writer.modules


class _CodeWriter:
    """Writes a syntax tree as words, in one walk because it is done at every `dvc repro`."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.used: set[str] = set()
        """Names that are read or written, also as strings: entries of `__all__`, and annotations as text."""
        self.imported: list[tuple[str, str]] = []
        """What is imported from modules, and the name that it gets."""
        self.modules: list[str] = []

    def add(self, node: ast.AST, *, in_class: bool = False) -> None:
        """Write `node` and what it holds, unless it changes no result."""
        match node:
            case ast.Constant(value=value):
                self.words.append(f"{type(value).__name__} {value!r}")
                if isinstance(value, str):
                    self.used.add(value)
            case ast.Name(id=name):
                self.used.add(name)
                self.words.append(name)
            case ast.ImportFrom(module=module, names=names, level=level):
                origin = f"{'.' * level}{module or ''}"
                self.imported += [(f"from {origin} import {a.name}", a.asname or a.name) for a in names]
                self.modules += [origin, *(f"{origin}.{a.name}" for a in names)]
            case ast.Import(names=names):
                self.modules += [a.name for a in names]
                self._add_fields(node)
            case ast.AnnAssign(target=target, value=value) if not in_class:  # in a class, dataclasses read it
                if value is not None:
                    self._add_fields(ast.Assign([target], value))
            case ast.Raise(exc=ast.Call(func=kind), cause=cause) if _stops_the_run(kind):
                self._add_fields(ast.Raise(kind, cause))
            case ast.Expr(value=value) if _only_tells(value):
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _:
                self._add_fields(node)

    def _add_fields(self, node: ast.AST) -> None:
        kind = type(node)
        self.words.append(f"({kind.__name__}")
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or value == [] or (kind, field) in _WITHOUT_EFFECT or field in _IGNORED:
                continue
            self.words.append(field)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.AST):
                    self.add(item, in_class=kind is ast.ClassDef)
                else:
                    self.words.append(str(item))
        self.words.append(")")


_IGNORED = ("ctx", "kind", "type_comment")
_WITHOUT_EFFECT = {
    (ast.FunctionDef, "returns"),
    (ast.AsyncFunctionDef, "returns"),
    (ast.arg, "annotation"),
    (ast.Assert, "msg"),
}
"""Fields of the syntax tree that change no result."""


def _only_tells(value: ast.expr) -> bool:
    """Whether a statement of this value is a docstring, or shows something to a person."""
    if isinstance(value, ast.Call):
        called = value.func
        return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in TELLING
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _stops_the_run(kind: ast.expr) -> bool:
    """Whether errors of this kind reach the user, who alone reads their text: those of Python, and READ_BY_USERS."""
    return isinstance(kind, ast.Name) and (kind.id in READ_BY_USERS or hasattr(builtins, kind.id))


def _meaning_digest(file: Path) -> str:
    return read_code(file.read_bytes()).meaning if file.suffix == ".py" else file_digest(file)


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
