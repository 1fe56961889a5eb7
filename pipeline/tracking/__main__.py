"""`python -m pipeline.tracking {follow,publish,summary,end} --spec FILE`, `... orphans --state DIR`, and `... ui`.

All but the last exit with status 0 even if the store is unavailable.
"""

import argparse
import signal
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.printable import printable
from pipeline.tracking.follow import follow
from pipeline.tracking.open_rows import LOCK_TIMEOUT_S, end_open, end_orphans, row_lock
from pipeline.tracking.publish import publish_row
from pipeline.tracking.spec import FollowSpec, RowSpec
from pipeline.tracking.store import StoreUnavailableError
from pipeline.tracking.summary import SummarySpec, publish_summary
from pipeline.tracking.ui import DEFAULT_PORT, serve_ui


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__)
    parser.add_argument("command", choices=["follow", "publish", "summary", "end", "orphans", "ui"])
    parser.add_argument("--spec", type=Path, help="JSON file written by RowSpec.write or FollowSpec.write")
    parser.add_argument("--status", choices=["FAILED", "KILLED"], default="KILLED", help="of a row that ends")
    parser.add_argument("--state", type=Path, help="the folder .unfreeze, for orphans")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port of ui (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "ui":
        _serve(arguments.port)
    elif arguments.command == "orphans":
        _end_orphans(arguments.state or parser.error("orphans needs --state"))
    elif arguments.spec is None:
        parser.error(f"{arguments.command} needs --spec")
    elif arguments.command == "publish":
        publish_row(RowSpec.read(arguments.spec))
    elif arguments.command == "summary":
        publish_summary(SummarySpec.read(arguments.spec))
    elif arguments.command == "end":
        _end(FollowSpec.read(arguments.spec), status=arguments.status)
    else:
        _follow(FollowSpec.read(arguments.spec))


def _serve(port: int) -> None:
    try:
        serve_ui(port=port)
    except (OSError, ValueError) as error:
        sys.exit(printable(f"ui: {error}"))


def _end_orphans(state_dir: Path) -> None:
    with suppress(StoreUnavailableError):
        end_orphans(state_dir)


def _end(spec: FollowSpec, *, status: str) -> None:
    with suppress(StoreUnavailableError), row_lock(spec).acquire(timeout=LOCK_TIMEOUT_S):
        end_open(spec, status=status)


def _follow(spec: FollowSpec) -> None:
    # What stops the stage reaches this process too, which still has to end the row.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        follow(spec)
    except Exception as error:  # the stage continues, so a traceback would only confuse
        stopped = f"tracking: live updates stopped ({type(error).__name__}: {error}); `publish` sends the rest"
        print(printable(stopped), file=sys.stderr)


if __name__ == "__main__":
    main()
