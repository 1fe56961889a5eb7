"""A summary of several runs as text: lines for a terminal of 80 columns, Markdown, and a table for other programs."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.comparison.table import Row, Summary, short_names
from pipeline.report.scores import percent, span

WIDTH = 80
_GAP = "  "
_VERDICTS = {"no clear difference": "unclear", "worse": "worse", "lower loss": "lower", "?": "?"}


@dataclass(frozen=True)
class Failed:
    """A job that did not end well, and how to repeat it."""

    name: str
    reason: str
    command: str


def terminal_lines(summary: Summary, *, use_winner: str | None = None, failed: Sequence[Failed] = ()) -> list[str]:
    """Return the table and what it says, in lines of at most 80 columns; only a command may be longer."""
    lines = _table(summary) or _stacked(summary)
    for sentence in findings(summary):
        lines += ["", *textwrap.wrap(sentence, WIDTH)]
    if use_winner is not None:
        lines += ["", "To use the first:", f"  {use_winner}"]
    for job in failed:
        reason = textwrap.shorten(" ".join(job.reason.split()), 3 * WIDTH, placeholder=" ...")
        lines += ["", *textwrap.wrap(f"Job {job.name} {reason}", WIDTH), "To repeat it:", f"  {job.command}"]
    return lines


def findings(summary: Summary) -> Iterator[str]:
    """Yield what the table says, in sentences."""
    rows, count = summary.rows, summary.num_valid
    if len(rows) < 2:
        return
    if summary.nothing_helped:
        yield (
            f"All {len(rows)} runs tie: in none was a cycle clearly better on valid than the model before training, so "
            "every one kept that. What differs between them had no chance to count."
        )
        return
    if count is None or any(row.verdict == "?" for row in rows[1:]):
        yield "Ranked by the loss on valid. Not all runs have answers for the same images, so no test tells them apart."
        return
    if summary.ranked_by is not None:
        yield f"Ranked by {summary.ranked_by}. The paired test beside it is of the losses on {count} images of valid."
        return
    test = f"A paired test of the losses on {count} images of valid"
    unclear = summary.undecided
    if len(unclear) == len(rows) - 1:
        what = "tells the two apart" if len(rows) == 2 else "tells the first from any other"
        yield f"No clear difference: no {test[2:]} {what}." + _cheapest([rows[0], *unclear])
    elif unclear:
        yield (
            f"{test} finds {len(rows) - 1 - len(unclear)} of {len(rows) - 1} clearly worse than the first; "
            f"no clear difference to the other {len(unclear)}." + _cheapest([rows[0], *unclear])
        )
    else:
        yield f"{test} finds the first clearly better than {'the other' if len(rows) == 2 else 'all others'}."
    if kept := sum(row.kept == "before" for row in rows):
        yield f"{kept} of {len(rows)} kept the model as it was before training (kept: before)."


def _cheapest(rows: Sequence[Row]) -> str:
    """Name the cheapest of runs that cannot be told apart, where that is not the first."""
    if any(row.seconds is None for row in rows):
        return ""
    first, *others = rows
    best = min(others, key=lambda row: row.seconds or 0.0)
    assert first.seconds is not None
    assert best.seconds is not None
    if best.seconds > 0.8 * first.seconds:
        return ""
    settings = ", ".join(f"{name}={_text(best.differing[key])}" for key, name in short_names([*best.differing]).items())
    return f" {settings} takes {best.seconds:.0f} s instead of {first.seconds:.0f} s."


def markdown(summary: Summary, *, title: str, use_winner: str | None = None, failed: Sequence[Failed] = ()) -> str:
    """Return the summary as a page of Markdown."""
    header, rows = _cells(summary, short_names(summary.differing))
    lines = [f"# {title}", ""]
    if rows:
        lines += [_md_row(header), _md_row(["---"] * len(header)), *(_md_row(row) for row in rows), ""]
    for sentence in findings(summary):
        lines += [sentence, ""]
    if use_winner is not None:
        lines += ["To use the first:", "", "```sh", use_winner, "```", ""]
    for job in failed:
        lines += [f"Job {job.name} {job.reason} To repeat it:", "", "```sh", job.command, "```", ""]
    return "\n".join(lines)


def csv_rows(summary: Summary) -> list[list[Any]]:
    """Return the table for other programs: full names, plain numbers, the best first."""
    header = [
        *summary.differing, *_objective_name(summary), "epochs", "kept", "valid_loss", "split", "accuracy",
        "accuracy_low", "accuracy_high", "seconds", "loss_above_best", "loss_above_best_low", "loss_above_best_high",
        "verdict", "folder",
    ]  # fmt: skip
    return [header, *(_csv_row(row, summary, is_best=i == 0) for i, row in enumerate(summary.rows))]


def _objective_name(summary: Summary) -> list[str]:
    """The name of the column that the table is sorted by, where that is not the loss on valid."""
    return [] if summary.ranked_by is None else [summary.ranked_by]


def _csv_row(row: Row, summary: Summary, *, is_best: bool) -> list[Any]:
    change, score = row.against_best, row.score
    above = ["", "", ""] if change is None else [change.loss, change.loss_low, change.loss_high]
    return [
        *("null" if value is None else value for value in row.differing.values()),
        *([row.objective] if summary.ranked_by else []),
        row.epochs, row.kept, row.valid_loss, score.split, score.accuracy, score.low, score.high,
        "" if row.seconds is None else row.seconds, *above, "best" if is_best else row.verdict, row.run.folder,
    ]  # fmt: skip


def _cells(summary: Summary, names: dict[str, str]) -> tuple[list[str], list[list[str]]]:
    settings = [*names.values()] if names else ["run"]
    objective = [name.rpartition("/")[2].replace("_", " ") for name in _objective_name(summary)]
    header = [*settings, *objective, "epochs", "kept", "valid loss", summary.score_name, "s", "vs best"]
    rows = []
    for i, row in enumerate(summary.rows):
        values = [_text(row.differing[key]) for key in names] if names else [row.run.name]
        seconds = "–" if row.seconds is None else f"{row.seconds:.0f}"
        verdict = "best" if i == 0 else _VERDICTS[row.verdict]
        values += [f"{row.objective:.4f}"] if objective else []
        rows.append([*values, str(row.epochs), row.kept, f"{row.valid_loss:.4f}", _accuracy(row), seconds, verdict])
    return header, rows


def _accuracy(row: Row) -> str:
    low, _, high = span(row.score).partition(" to ")
    return f"{percent(row.score.accuracy)} ({low}–{high})"


def _table(summary: Summary) -> list[str]:
    """Return the table in columns; nothing if it would be too wide."""
    if not summary.rows:
        return []
    header, rows = _cells(summary, short_names(summary.differing))
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if sum(widths) + len(_GAP) * (len(widths) - 1) > WIDTH:
        return []
    left = {*range(len(summary.differing) or 1), header.index("kept"), len(header) - 1}

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return _GAP.join(padded).rstrip()

    return [line(header), *map(line, rows)]


def _stacked(summary: Summary) -> list[str]:
    """Return the settings of each run above its scores."""
    lines = []
    for i, (row, cells) in enumerate(zip(summary.rows, _cells(summary, {})[1], strict=True), start=1):
        names = short_names([*row.differing])
        settings = " ".join(f"{names[key]}={_text(value)}" for key, value in row.differing.items()) or row.run.name
        lines.append(textwrap.shorten(f"{i}. {settings}", WIDTH, placeholder=" ..."))
        *_, epochs, kept, loss, accuracy, seconds, verdict = cells
        unit = "epoch" if epochs == "1" else "epochs"
        objective = "" if summary.ranked_by is None else f"{summary.ranked_by} {row.objective:.4f}, "
        scores = f"{objective}{epochs} {unit}, kept {kept}, valid loss {loss}, {row.score.split} {accuracy}"
        lines += textwrap.wrap(
            f"{scores}, {seconds} s: {verdict}", WIDTH, initial_indent="   ", subsequent_indent="   "
        )
    return lines


def _md_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
