"""`unfreeze predict`: classify images with a trained model, and print a line for each."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.deployment.inputs import Named, find_inputs
from pipeline.printable import printable
from pipeline.workspace import Bar

if TYPE_CHECKING:  # torch takes seconds to import: --help and wrong arguments must not wait for it
    from pipeline.deployment.output import Format
    from pipeline.evaluation.answers import Answer
    from pipeline.evaluation.prediction import Predictor

_MANY = 64
"""From this many files on, other processes decode."""
_BROKEN_PIPE = 141
"""The exit status of a program that writes to a pipe that nobody reads any more, such as `| head`."""


@dataclass(frozen=True)
class Asked:
    """What a person typed."""

    model: str
    inputs: list[str]
    format: str
    top_k: int
    tta: bool
    coverage: float | None
    novelty: bool
    device: str


def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Print a line per image; returns 1 if an image, or the model, cannot be read."""
    asked = Asked(**vars(_parser(prog).parse_args(argv)))
    try:
        return _predict(asked, find_inputs(asked.inputs, stdin=sys.stdin.buffer))
    except BrokenPipeError:
        with suppress(OSError):  # otherwise Python complains when it flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except (ValueError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Classify images with a trained model. A file that cannot be read gets a line with the reason, and "
        "the exit status is then 1.",
    )
    parser.add_argument(
        "model",
        help="a model folder (artifacts/tta_evaluate/model), models:/NAME@champion or runs:/ID/model in MLflow, or an "
        "exported .onnx or .pt2 file",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="input",
        help="files, folders, patterns in quotes such as 'photos/**/*.jpg', or - for a list of them on standard input",
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="json: an object per line")
    parser.add_argument("--top-k", type=_at_least_1, default=1, metavar="K", help="the K most probable classes")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, as in the evaluation")
    parser.add_argument(
        "--coverage",
        type=float,
        metavar="SHARE",
        help="also a set of classes that holds the true one for this share of images, such as 0.9",
    )
    parser.add_argument(
        "--novelty",
        action="store_true",
        help="also which share of the validation images is nearer to the training images: 0.99 or more means that the "
        "image is unlike them",
    )
    parser.add_argument(
        "--device",
        default=os.environ.get("UNFREEZE_DEVICE", "auto"),
        help="auto (CUDA where present), cpu, cuda, cuda:1, mps (default: %(default)s)",
    )
    return parser


def _at_least_1(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few: 1 or more")
    return number


def _predict(asked: Asked, found: list[Named]) -> int:
    from pipeline.deployment.models import open_predictor
    from pipeline.deployment.output import Shown, open_format
    from pipeline.evaluation.calibration import threshold
    from pipeline.model.allocator import keep_freed_memory
    from pipeline.model.compute import find_device

    keep_freed_memory()
    predictor = open_predictor(asked.model, find_device(asked.device))
    scores = predictor.calibration(tta=asked.tta).scores
    shown = Shown(
        predictor.card.classes,
        asked.top_k,
        None if asked.coverage is None else threshold(scores, asked.coverage),
        asked.novelty,
    )
    lines = open_format(asked.format, shown, names=(str(named.path) for named in found))
    with _bar(len(found)) as bar:
        num_failed = _print_all(lines, _answers(predictor, found, asked, bar))
    if num_failed:
        print(printable(f"error: {num_failed} of {len(found)} files cannot be read"), file=sys.stderr)
    return 1 if num_failed else 0


def _answers(predictor: "Predictor", found: list[Named], asked: Asked, bar: Bar) -> Iterator["Answer"]:
    """An answer for each of `found`, in order; names that lead nowhere stand between the others."""
    from pipeline.evaluation.answers import Answer, answer

    if asked.novelty:
        predictor.compared()
    files = [named.path for named in found if not named.error]
    answers = answer(predictor, files, tta=asked.tta, novelty=asked.novelty, workers=_workers(len(files)), bar=bar)
    for named in found:
        if named.error:
            bar.advance()
            yield Answer(named.path, error=named.error)
        else:
            yield next(answers)


def _print_all(lines: "Format", answers: Iterator["Answer"]) -> int:
    """Print every answer as soon as it is there; returns how many files could not be read."""
    out, num_failed = sys.stdout, 0
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="surrogateescape")  # names of files are bytes, and leave as they came
    shown = printable if out.isatty() else str
    out.write(shown(lines.header()))
    for each in answers:
        out.write(shown(lines.line(each)))
        out.flush()
        num_failed += each.probs is None
    return num_failed


@contextmanager
def _bar(total: int) -> Iterator[Bar]:
    """A progress bar in the terminal, unless the lines themselves appear there."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        yield Bar()
        return
    from pipeline.console import progress_bar  # what draws it takes a moment to import

    with progress_bar("predict", total) as bar:
        yield bar


def _workers(num_files: int) -> int:
    from pipeline.model.compute import num_cores

    return min(num_cores() - 1, 8) if num_files >= _MANY else 0


if __name__ == "__main__":
    sys.exit(main())
