"""Images that a person leaves out: those listed in `data.drop`."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.data import table
from pipeline.data.found import FoundFile
from pipeline.files import file_digest
from pipeline.paths import ARTIFACTS, from_checkout
from pipeline.settings import DataSource, SettingsError

REASON = "listed in data.drop="
"""How the ledger's line of an image begins that was left out."""

_LISTED = 5


def check_drop(data: DataSource) -> None:
    """Raise SettingsError if `data.drop` names a file that the pipeline itself writes.

    It would be rewritten by what dropping its images changes, and they would come back.
    """
    artifacts = from_checkout(str(ARTIFACTS)).resolve()
    if data.drop and from_checkout(data.drop).resolve().is_relative_to(artifacts):
        raise SettingsError(
            f"data.drop={data.drop} is written again whenever images change: copy it out of {ARTIFACTS}/, leave the "
            "images to drop in it, and name the copy (data.drop=suspects.csv)"
        )


def drop_digest(data: DataSource) -> str | None:
    """Digest of the table that `data.drop` names; None for none. Raises SettingsError if it is not there."""
    return file_digest(_file(data)) if data.drop else None


def drop_listed(found: Iterable[FoundFile], data: DataSource) -> Iterator[FoundFile]:
    """Yield `found`, with the files that `data.drop` lists marked as to be ignored.

    Raises SettingsError, at the end, for a listed path that was not found.
    """
    missing = _listed_paths(data) if data.drop else {}
    listed = set(missing)
    for file in found:
        if file.path in listed:
            missing.pop(file.path, None)
            file = replace(file, problem=f"{REASON}{data.drop}", ignored=True)
        yield file
    if missing:
        shown = ", ".join(repr(path) for path in list(missing)[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise SettingsError(
            f"data.drop={data.drop} lists what is not among the images: {shown}{more}; paths must be as in "
            "artifacts/ingest/ledger.jsonl: correct these lines, or remove them"
        )


def _listed_paths(data: DataSource) -> dict[str, None]:
    """The listed paths, in order and without repetition."""
    file = _file(data)
    try:
        rows = [cells for _, cells in table.read_rows(file)]
    except (OSError, ValueError) as error:
        raise SettingsError(f"data.drop={data.drop} cannot be read as a table: {error}") from None
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if rows and "path" not in columns:
        raise SettingsError(
            f"data.drop={data.drop} has no column 'path'; it has {columns}: rename one (.csv files need commas between "
            "cells, .tsv files need tabs)"
        )
    return dict.fromkeys(str(row["path"]) for row in rows if row.get("path"))


def _file(data: DataSource) -> Path:
    check_drop(data)
    file = from_checkout(data.drop or "")
    if not file.is_file():
        raise SettingsError(
            f"data.drop={data.drop} is not a file ({file.resolve()}): give a table with the column path, or "
            "data.drop=null to use all images"
        )
    return file
