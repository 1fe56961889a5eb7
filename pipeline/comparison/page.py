"""The difference of two runs as lines for a terminal, and as a page with pictures."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.comparison.difference import Changed, DataChange, Difference
from pipeline.comparison.paired import Change
from pipeline.data.manifest import read_root
from pipeline.paths import ARTIFACTS
from pipeline.report.html import Cell, Report, Section, Shot, Table, Tile, write_report
from pipeline.report.reading import background_of, read_image
from pipeline.report.scores import percent, read_score
from pipeline.report.sentences import counted, points
from pipeline.report.tiles import save_tile, tile_path

WIDTH = 80
LISTED = 5
SHOWN = 30
"""Pictures of each kind of changed answer."""
KINDS = {
    "worse": "Right before, wrong now",
    "better": "Wrong before, right now",
    "other": "Wrong in both, in another way",
}


def difference_lines(found: Difference) -> list[str]:
    """Return what differs, in lines of at most 80 columns where no name is longer."""
    lines = [f"A  {found.first.name}", f"B  {found.second.name}"]
    for heading, texts in (
        ("Scores", list(score_lines(found))),
        ("Settings", [f"{key}: {_text(a)} -> {_text(b)}" for key, (a, b) in found.settings.items()]),
        ("Images", list(data_lines(found.data))),
        ("Code", list(code_lines(found.code))),
        ("Rates", [f"{stage}: {_rate(a)} -> {_rate(b)}" for stage, (a, b) in found.rates.items() if a != b]),
        ("Answers", list(answer_lines(found))),
    ):
        lines += ["", heading]
        for text in texts or ["no difference"]:
            lines += textwrap.wrap(
                text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
    return lines


def score_lines(found: Difference) -> Iterator[str]:
    """Yield each run's score, and what a paired test says of the difference."""
    for letter, run in (("A", found.first), ("B", found.second)):
        score = read_score(run.stages)
        if score is not None:
            yield f"{letter}: {score}, {'with TTA' if score.mode == 'tta' else 'plain images'}"
        elif run.trained is not None:
            metrics = run.json(run.trained)
            yield f"{letter}: valid loss {metrics['valid_loss']:.4f}, accuracy {percent(metrics['valid_accuracy'])}"
    if not found.scores:
        yield "They have answers for no image in common, so no test compares them."
    for split, change in found.scores.items():
        yield f"{split}: {change_text(change)}"


def change_text(change: Change) -> str:
    """Say how B differs from A on a split."""
    clear = "a clear difference" if change.accuracy_p < 0.05 else "no clear difference"
    return (
        f"{points(change.accuracy)} points on {change.num_images} images that both have ({change.only_second} right in "
        f"B alone, {change.only_first} in A alone; McNemar's exact p = {change.accuracy_p:.2g}: {clear}); loss "
        f"{change.loss:+.4f} ({change.loss_low:+.4f} to {change.loss_high:+.4f})"
    )


def data_lines(data: DataChange | None) -> Iterator[str]:
    """Yield what happened to the images."""
    if data is None:
        yield "not known: the list of images of one of the runs is gone"
        return
    before, after = data.num_images
    if not data.is_empty:
        yield f"{before} -> {after} images"
    for what, paths in (("added", data.added), ("removed", data.removed), ("changed", data.edited)):
        if paths:
            yield f"{counted(len(paths), 'image')} {what}: {_first(paths)}"
    for what, changes in (("with another label", data.relabelled), ("in another split", data.moved)):
        if changes:
            pairs = [f"{path} ({a} -> {b})" for path, (a, b) in changes.items()]
            yield f"{counted(len(pairs), 'image')} {what}: {_first(pairs)}"


def code_lines(code: Sequence[str] | None) -> Iterator[str]:
    """Yield which files mean something else."""
    if code is None:
        yield "not known: jobs that were run by hand keep no record of it"
    elif code:
        yield f"{counted(len(code), 'file')} with another meaning: {_first(code)}"


def answer_lines(found: Difference) -> Iterator[str]:
    """Yield how many answers changed, and how."""
    kinds = Counter(changed.kind for changed in found.answers)
    for kind, what in KINDS.items():
        if kinds[kind]:
            paths = [c.path for c in found.answers if c.kind == kind]
            yield f"{what}: {counted(len(paths), f'{found.split} image')}: {_first(paths)}"


def write_difference(folder: Path, found: Difference) -> Path:
    """Write `diff.html` into `folder`, with pictures of the images whose answer changed; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = found.settings
    sections = [
        *(_answers_section(kind, found, folder) for kind in KINDS if any(c.kind == kind for c in found.answers)),
        _table_section("Settings", ["setting", "A", "B"], {k: (_text(a), _text(b)) for k, (a, b) in settings.items()}),
        Section("Images", paragraphs=list(data_lines(found.data)) or ["No difference."]),
        Section("Code", paragraphs=list(code_lines(found.code)) or ["No difference."]),
        _table_section("Rates", ["stage", "A", "B"], {k: (_rate(a), _rate(b)) for k, (a, b) in found.rates.items()}),
    ]
    tiles = [
        Tile(letter, run.name, str(read_score(run.stages) or ""))
        for letter, run in (("A", found.first), ("B", found.second))
    ]
    main = found.scores.get(found.split)
    page = folder / "diff.html"
    write_report(
        page,
        report=Report(
            title="What differs between two runs",
            figure="" if main is None else f"{points(main.accuracy)} points",
            headline="They have answers for no image in common." if main is None else _headline(main, found.split),
            tiles=tiles,
            verdict=[(f"On {split}", f"{change_text(change)}.") for split, change in found.scores.items()],
            sections=sections,
        ),
    )
    return page


def _headline(change: Change, split: str) -> str:
    clear = "a clear difference" if change.accuracy_p < 0.05 else "no clear difference"
    return f"correct in B against A, on {change.num_images} {split} images that both have answered: {clear}."


def _table_section(heading: str, header: Sequence[str], rows: Mapping[str, tuple[str, str]]) -> Section:
    if not rows:
        return Section(heading, paragraphs=["No difference."])
    cells: list[list[Cell]] = [[key, a, b] for key, (a, b) in rows.items()]
    return Section(heading, table=Table(header, cells))


def _answers_section(kind: str, found: Difference, folder: Path) -> Section:
    changed = [c for c in found.answers if c.kind == kind]
    shots = [_shot(kind, i, c, found, folder) for i, c in enumerate(islice(changed, SHOWN))]
    more = f" The first {SHOWN} are shown." if len(changed) > SHOWN else ""
    what = f"{counted(len(changed), f'{found.split} image')}.{more} The largest change of the loss comes first."
    return Section(KINDS[kind], paragraphs=[what], shots=shots)


def _shot(kind: str, row: int, changed: Changed, found: Difference, folder: Path) -> Shot:
    files = []
    if (image := _image(changed.path, found)) is not None:
        files.append(tile_path(folder, kind, row))
        save_tile(files[0], image)
    lines = [f"{changed.first.label}", f"A: {_answer(changed, 'first')}", f"B: {_answer(changed, 'second')}"]
    return Shot(files, [*lines, Path(changed.path).name], changed.path)


def _image(path: str, found: Difference) -> Image.Image | None:
    """Read an image where one of the runs has it, or the working copy; None if it is nowhere any more."""
    folders = (found.second.ingest, found.first.ingest, ARTIFACTS / "ingest")
    for ingest in (folder for folder in folders if folder is not None and (folder / "stage.json").exists()):
        file = read_root(ingest) / path
        if file.is_file():
            return read_image(file, background_of(ingest))
    return None


def _answer(changed: Changed, side: str) -> str:
    answer = changed.first if side == "first" else changed.second
    return answer.predicted if answer.confidence is None else f"{answer.predicted} ({percent(answer.confidence)})"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.3g}"


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
