"""`python -m pipeline.tracking {follow,publish} --spec FILE`, and `python -m pipeline.tracking ui`.

The first two end with status 0 when the store is away.
"""

import argparse
import signal
import sys
from pathlib import Path

from pipeline.tracking.follow import follow
from pipeline.tracking.publish import publish_row
from pipeline.tracking.spec import FollowSpec, RowSpec
from pipeline.tracking.ui import serve_ui


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__)
    parser.add_argument("command", choices=["follow", "publish", "ui"])
    parser.add_argument("--spec", type=Path, help="JSON file that RowSpec.write or FollowSpec.write made")
    parser.add_argument("--port", type=int, default=5000, help="for ui")
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the stage decides when it ends
    try:
        follow(FollowSpec.read(arguments.spec))
    except Exception as error:  # beside a stage that goes on, a traceback would only confuse
        print(f"tracking: not shown live, publish delivers it ({type(error).__name__}: {error})", file=sys.stderr)


if __name__ == "__main__":
    main()
