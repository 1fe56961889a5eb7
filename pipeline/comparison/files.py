"""Writes the summary of several runs: `summary.md`, `summary.csv` and `summary.png`."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.comparison.table import Row, Summary, short_names
from pipeline.comparison.texts import Failed, csv_rows, markdown
from pipeline.files import write_csv, write_text

NAMES = ("summary.md", "summary.csv", "summary.png")


def write_summary(
    folder: Path, summary: Summary, *, title: str, use_winner: str | None = None, failed: Sequence[Failed] = ()
) -> list[Path]:
    """Write the three files into `folder`, no picture without runs; returns their paths."""
    page, table, picture = (folder / name for name in NAMES)
    write_text(page, markdown(summary, title=title, use_winner=use_winner, failed=failed))
    write_csv(table, csv_rows(summary))
    if not summary.rows:
        return [page, table]
    draw_summary(picture, summary)
    return [page, table, picture]


def draw_summary(path: Path, summary: Summary) -> None:
    """Draw a heat map where two settings form a full grid, parallel coordinates for more, otherwise bars."""
    # matplotlib takes half a second to import
    from pipeline.report.summary_plot import Bar, Line, plot_bars, plot_grid, plot_parallel

    rows, accuracy = summary.rows, summary.score_name
    title = _title(summary)
    grid = _grid(rows)
    if grid is None and len(summary.differing) > 2 and len(rows) > 2:
        lines = [Line([*row.differing.values()], row.objective, row.verdict == "no clear difference") for row in rows]
        objective = summary.ranked_by or "loss on valid"
        plot_parallel(
            path, lines=lines, settings=[*short_names(summary.differing).values()], objective=objective, title=title
        )
        return
    if grid is None:
        bars = [
            Bar(_label(row), row.score.accuracy, row.score.low, row.score.high, row.verdict == "no clear difference")
            for row in rows
        ]
        plot_bars(path, bars=bars, accuracy=accuracy, title=title)
        return
    (a, across), (b, down), cells = grid
    names = short_names(summary.differing)
    plot_grid(
        path,
        values=[[cells[x, y].score.accuracy for y in down] for x in across],
        rows=(names[a], across),
        columns=(names[b], down),
        best=(across.index(str(rows[0].differing[a])), down.index(str(rows[0].differing[b]))),
        accuracy=accuracy,
        title=title,
    )


def _title(summary: Summary) -> str:
    rows = summary.rows
    if len(rows) == 1:
        return f"One run: {rows[0].score}"
    if summary.nothing_helped:
        return f"{len(rows)} runs tie: all kept the model as it was before training"
    if len(summary.undecided) == len(rows) - 1:
        return f"{len(rows)} runs, no clear difference between the best and the others"
    worse = sum(row.verdict == "worse" for row in rows[1:])
    return f"{_label(rows[0])} is best of {len(rows)}; {worse} clearly worse"


def _label(row: Row) -> str:
    names = short_names([*row.differing])
    return " ".join(f"{names[key]}={value}" for key, value in row.differing.items()) or row.run.name


def _grid(
    rows: Sequence[Row],
) -> tuple[tuple[str, list[str]], tuple[str, list[str]], dict[tuple[str, str], Row]] | None:
    """Return the two settings with their values, and the run of each pair; None unless every pair has one run."""
    keys = list(rows[0].differing)
    if len(keys) != 2:
        return None
    a, b = keys
    cells = {(str(row.differing[a]), str(row.differing[b])): row for row in rows}
    across, down = (_in_order([row.differing[key] for row in rows]) for key in (a, b))
    if min(len(across), len(down)) < 2 or not len(rows) == len(cells) == len(across) * len(down):
        return None
    return (a, across), (b, down), cells


def _in_order(values: Sequence[object]) -> list[str]:
    """Return each value once, as text: numbers by size, others in the order of the alphabet."""
    numbers = [v for v in values if isinstance(v, int | float)]
    ordered = sorted(numbers) if len(numbers) == len(values) else sorted(values, key=str)
    return list(dict.fromkeys(map(str, ordered)))
