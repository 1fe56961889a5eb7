"""Sends the summary of a sweep to the row of its best job, where MLflow shows it beside the pictures."""

import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.printable import printable
from pipeline.tracking.spec import RowSpec
from pipeline.tracking.store import Store, StoreUnavailableError, reachable

FOLDER = "sweep"
"""Where the files lie among the row's artifacts."""


@dataclass(frozen=True, kw_only=True)
class SummarySpec(RowSpec):
    """The files to send, and the row that they belong to; `tags` are added to it."""

    row: dict[str, str]
    """Tags by which the row is found."""

    files: list[Path]


def publish_summary(spec: SummarySpec) -> str | None:
    """Attach the summary, and return the row's run id; None where there is no such row, or no store, which is said."""
    try:
        with reachable(spec.tracking_uri):
            store = Store(spec)
            run_id = store.find(**spec.row)
            if run_id is None:
                print(
                    printable(f"tracking: no row with {spec.row}; the summary stays in {spec.files[0].parent}"),
                    file=sys.stderr,
                )
            else:
                store.log_files(run_id, [(file, FOLDER) for file in spec.files])
                store.set_tags(run_id, spec.tags)
            return run_id
    except StoreUnavailableError as error:
        print(printable(f"tracking: {error}; the summary stays in {spec.files[0].parent}"), file=sys.stderr)
        return None
