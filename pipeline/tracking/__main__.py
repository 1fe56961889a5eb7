"""`python -m pipeline.tracking {follow,publish,summary} --spec FILE`, and `python -m pipeline.tracking ui`.

The first three exit with status 0 even if the store is unavailable.
"""

import argparse
import signal
import sys
from pathlib import Path

from pipeline.tracking.follow import follow
from pipeline.tracking.publish import publish_row
from pipeline.tracking.spec import FollowSpec, RowSpec
from pipeline.tracking.summary import SummarySpec, publish_summary
from pipeline.tracking.ui import DEFAULT_PORT, serve_ui


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__)
    parser.add_argument("command", choices=["follow", "publish", "summary", "ui"])
    parser.add_argument("--spec", type=Path, help="JSON file written by RowSpec.write or FollowSpec.write")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port of ui (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "ui":
        try:
            serve_ui(port=arguments.port)
        except (OSError, ValueError) as error:
            sys.exit(f"ui: {error}")
    if arguments.spec is None:
        parser.error(f"{arguments.command} needs --spec")
    if arguments.command == "publish":
        publish_row(RowSpec.read(arguments.spec))
        return
    if arguments.command == "summary":
        publish_summary(SummarySpec.read(arguments.spec))
        return
    # Ctrl-C reaches this process too, but the stage decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        follow(FollowSpec.read(arguments.spec))
    except Exception as error:  # the stage continues, so a traceback would only confuse
        print(
            f"tracking: live updates stopped ({type(error).__name__}: {error}); `publish` sends the rest",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
