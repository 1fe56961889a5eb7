"""`unfreeze predict`, `export`, `compare`, `diff`, `verify`, `shards` and `ui`: what a user types beside `dvc`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        return _main(argv)
    except KeyboardInterrupt:
        from pipeline.console import complain

        complain("unfreeze", "stopped")
        return 130


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="unfreeze", description="The recipe for a world-class image classifier.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # These have parsers of their own, so that only what is asked for is loaded: their options are handed on to them.
    commands.add_parser("predict", help="classify images with a trained model", add_help=False)
    commands.add_parser("compare", help="compare finished runs in a table", add_help=False)
    commands.add_parser("diff", help="say what differs between two runs, with pictures", add_help=False)
    commands.add_parser("export", help="write a trained model as an ONNX or torch.export file", add_help=False)
    commands.add_parser("verify", help="check that results and images are what they were", add_help=False)
    commands.add_parser("shards", help="write images into tar files that are read in place", add_help=False)
    ui = commands.add_parser("ui", help="open the table of runs in a browser")
    ui.add_argument("--port", type=int, default=5000)
    arguments, others = parser.parse_known_args(argv)
    if arguments.command == "predict":
        from pipeline.deployment import predict

        return predict.main(others, prog="unfreeze predict")
    if arguments.command == "export":
        from pipeline.deployment import export

        return export.main(others, prog="unfreeze export")
    if arguments.command == "verify":
        from pipeline.harness import verify

        return verify.main(others, prog="unfreeze verify")
    if arguments.command == "shards":
        from pipeline.harness import shards

        return shards.main(others, prog="unfreeze shards")
    if arguments.command == "compare":
        return _compare(others)
    if arguments.command == "diff":
        return _diff(others)
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return _serve(arguments.port)


def _compare(arguments: Sequence[str]) -> int:
    from pipeline.comparison import commands
    from pipeline.harness.live import end_orphans
    from pipeline.harness.sweep_end import use_row

    end_orphans()
    prog = "unfreeze compare"
    return commands.main(arguments, lambda a: commands.compare(a, command=use_row, prog=prog), name=prog)


def _diff(arguments: Sequence[str]) -> int:
    from pipeline.comparison import commands
    from pipeline.harness.live import end_orphans

    end_orphans()

    def fetch(revision: str, target: Path) -> None:
        from pipeline.harness.revisions import fetch_run  # DVC takes a second to import

        fetch_run(revision, target)

    prog = "unfreeze diff"
    return commands.main(arguments, lambda a: commands.diff(a, fetch=fetch, prog=prog), name=prog)


def _serve(port: int) -> int:
    from pipeline.console import complain
    from pipeline.tracking.ui import serve_ui

    try:
        serve_ui(port=port)
    except (OSError, ValueError) as error:
        complain("ui", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
