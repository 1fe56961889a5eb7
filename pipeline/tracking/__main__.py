"""`python -m pipeline.tracking {follow,publish,summary,end} --spec FILE`, `... orphans --state DIR`, and `... ui`.

All but the last exit with status 0 even if the store is unavailable.
"""

import argparse
import signal
import sys
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from pipeline.passwords import hide_known_passwords
from pipeline.printable import printable
from pipeline.tracking.bounded import READY, SENT, exit_after, exit_after_hangup, say_word
from pipeline.tracking.follow import follow
from pipeline.tracking.open_rows import LOCK_TIMEOUT_S, end_open, end_orphans, row_lock
from pipeline.tracking.publish import send
from pipeline.tracking.spec import FollowSpec
from pipeline.tracking.store import StoreUnavailableError, load
from pipeline.tracking.summary import SummarySpec, publish_summary
from pipeline.tracking.ui import DEFAULT_PORT, serve_ui

_LIFE_S = 60.0
"""How long a process that nobody waits for may take."""
_LAST_S = 5.0
"""How long a follower may go on sending when its stage has ended: the next one waits for its row."""


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
        send(arguments.spec)
    elif arguments.command == "summary":
        _send_summary(SummarySpec.read(arguments.spec))
    elif arguments.command == "end":
        _end(_taken(arguments.spec), status=arguments.status)
    else:
        _follow(_taken(arguments.spec))


def _serve(port: int) -> None:
    try:
        serve_ui(port=port)
    except (OSError, ValueError) as error:
        sys.exit(printable(f"ui: {error}"))


def _send_summary(spec: SummarySpec) -> None:
    load(spec)
    say_word(READY)
    publish_summary(spec)
    say_word(SENT)


def _end_orphans(state_dir: Path) -> None:
    exit_after(_LIFE_S)
    with suppress(StoreUnavailableError, Timeout):
        end_orphans(state_dir)


def _taken(file: Path) -> FollowSpec:
    """Read a spec that was written for this process alone, and remove it."""
    spec = FollowSpec.read(file)
    file.unlink(missing_ok=True)
    return spec


def _end(spec: FollowSpec, *, status: str) -> None:
    exit_after(_LIFE_S)
    with suppress(StoreUnavailableError, Timeout), row_lock(spec).acquire(timeout=LOCK_TIMEOUT_S):
        end_open(spec, status=status)


def _follow(spec: FollowSpec) -> None:
    # What stops the stage reaches this process too, which still has to end the row.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    exit_after_hangup(sys.stdin.fileno(), _LAST_S)
    try:
        follow(spec)
    except Exception as error:  # the stage continues, so a traceback would only confuse
        said = hide_known_passwords(f"{type(error).__name__}: {error}")
        print(printable(f"tracking: live updates stopped ({said}); `publish` sends the rest"), file=sys.stderr)


if __name__ == "__main__":
    main()
