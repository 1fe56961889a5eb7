"""Published folders: what each says of itself in `stage.json`, and whether its files are still what was published."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.files import (
    digest,
    file_digest,
    file_state,
    move_folder,
    read_json,
    remove_folder,
    rename,
    write_json,
)
from pipeline.kept import read_kept, write_kept

RECORD = "stage.json"


class DamagedError(ValueError):
    """A published folder is not what was published; the message names the files, and how to make them again."""


def read_record(folder: Path) -> dict[str, Any]:
    """Read what a published folder says of itself. Raises FileNotFoundError or DamagedError: how to make it again."""
    record = read_published(folder / RECORD)
    if not isinstance(record, dict) or record.pop("checksum", None) != digest(record):
        raise DamagedError(f"{folder / RECORD} was changed, or made by an older version: {_remedy(folder)}")
    return record


def read_published(file: Path) -> dict[str, Any]:
    """Read a JSON file of a published folder. Raises FileNotFoundError that says how to make it, or DamagedError."""
    try:
        values: dict[str, Any] = read_json(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file.parent} is missing: run `dvc repro {file.parent.name}` first") from None
    except ValueError as error:
        raise DamagedError(f"{file} is damaged ({error}): {_remedy(file.parent)}") from None
    return values


def complete_record(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Add to what the folder says of itself the digest of each of its files, and one of them all."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p != folder / RECORD)
    files = {p.relative_to(folder).as_posix(): file_digest(p) for p in found}
    return record | {"files": files, "digest": digest(files)}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write what the folder says of itself, as `complete_record` gives it; this makes it complete."""
    write_json(folder / RECORD, record | {"checksum": digest(record)})


def check_folder(folder: Path, *, state: Path, by_content: bool = False) -> None:
    """Compare a folder's files with what it says of itself.

    A file whose size and time are those of the last check is taken as it is, unless `by_content` is set. `state` is
    `.unfreeze/`, where these are kept. Raises DamagedError, which names the files, or FileNotFoundError.
    """
    files: dict[str, str] = read_record(folder)["files"]
    note = state / "checked" / f"{digest(str(folder.resolve()))[:20]}.json"
    known = {} if by_content else read_kept(note) or {}
    states = {name: f"{told} {file_state(os.path.join(folder, name))}" for name, told in files.items()}  # noqa: PTH118
    doubtful = {name: told for name, told in files.items() if states[name] != known.get(name)}
    if wrong := _changed(folder, doubtful):
        raise DamagedError(f"{folder}: {', '.join(wrong)} is not what was published: {_remedy(folder)}")
    if doubtful:
        write_kept(note, states)


def is_complete(folder: Path) -> bool:
    """Whether `write_record` came to its end there, and nothing has changed since."""
    try:
        files = read_record(folder)["files"]
    except (OSError, ValueError):
        return False
    return not _changed(folder, files)


def publish(out: Path, target: Path) -> None:
    """Make `out` the folder `target` in one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming, outgoing = (target.with_name(f".{target.name}.{name}") for name in ("incoming", "outgoing"))
    for rest in (incoming, outgoing):
        remove_folder(rest)
    move_folder(out, incoming)
    if target.exists():
        rename(target, outgoing)
    rename(incoming, target)
    remove_folder(outgoing)


def published_below(root: Path) -> Iterator[Path]:
    """Yield every published folder below `root`, sorted."""
    return (record.parent for record in sorted(root.rglob(RECORD)))


def _changed(folder: Path, files: Mapping[str, str]) -> list[str]:
    """The files whose content is not that of these digests, or that are gone."""
    return [name for name, told in files.items() if not (f := folder / name).is_file() or file_digest(f) != told]


def _remedy(folder: Path) -> str:
    return f"remove {folder} and type `dvc repro`"
