"""From the runs of one work to figures, a verdict on each goal, and the table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

IMPORTS = 11
"""Fixed costs are stated as so many `import torch`: one for each process that the recipe's stages start."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    ours: float
    other: float | None
    """fastai's, or the limit; None where there is nothing to compare with."""
    ratio: float | None = None
    """Ours by the other; of several pairs, the median of their ratios."""
    goal: float | None = None
    better: Literal["less", "more"] = "less"
    each: tuple[float, ...] = ()
    """The ratios of all pairs."""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None or self.ratio is None:
            return None
        return self.ratio <= self.goal if self.better == "less" else self.ratio >= self.goal


def rows_of(pairs: Sequence[Mapping[str, Any]], limit: Mapping[str, float], *, goal: float) -> list[Row]:
    """The rows of one work.

    Args:
        pairs: each with `ours`, `fastai` (`wall_s`, `cpu_s`, `largest_mb`, `seconds` by stage, `accuracy`,
            `accuracy_tta`; ours also `images` by split and `epochs`) and `import_torch_s`.
        limit: images per second, from `limit.measure`.
        goal: for the ratio of wall times.
    """
    ours, fastai = [pair["ours"] for pair in pairs], [pair["fastai"] for pair in pairs]
    rows = [
        _beside("whole recipe, wall s", ours, fastai, "wall_s", goal=goal),
        _beside("whole recipe, CPU s", ours, fastai, "cpu_s"),
        _beside("largest process, MB", ours, fastai, "largest_mb"),
        Row("accuracy on test", _median(ours, "accuracy"), _median(fastai, "accuracy")),
        Row("accuracy on test, TTA", _median(ours, "accuracy_tta"), _median(fastai, "accuracy_tta")),
    ]
    by_stage = [[run["seconds"] for run in runs] for runs in (ours, fastai)]
    for stage in by_stage[0][0]:
        has_other = all(stage in seconds for seconds in by_stage[1])
        other = _median(by_stage[1], stage) if has_other else None
        rows.append(Row(f"{stage}, s", _median(by_stage[0], stage), other))
    outside = [run["wall_s"] - sum(run["seconds"].values()) for run in ours]
    imports = [IMPORTS * pair["import_torch_s"] for pair in pairs]
    finder, training = ([seconds[s] for seconds in by_stage[0]] for s in ("lr_find_full", "full_train"))
    train_rates = [run["epochs"] * run["images"]["train"] / run["seconds"]["full_train"] for run in ours]
    looked_at = [run["images"]["train"] + run["images"]["valid"] for run in ours]
    forward_rates = [n / run["seconds"]["precompute"] for n, run in zip(looked_at, ours, strict=True)]
    return [
        *rows,
        _ratio("lr_find_full / full_train, s", finder, training, goal=0.1),
        _ratio(f"outside stages / {IMPORTS} import torch, s", outside, imports, goal=1.5),
        _of_limit("full_train, its step / limit, images/s", [limit["train_step"]], limit["train_limit"], goal=0.95),
        _of_limit("full_train, whole stage / limit, images/s", train_rates, limit["train_limit"]),
        _of_limit("precompute, whole stage / limit, images/s", forward_rates, limit["forward_limit"], goal=0.9),
    ]


def format_table(title: str, rows: Sequence[Row]) -> str:
    """The rows as a Markdown table that is also aligned as plain text."""
    cells = [["", "ours", "beside", "ratio", "goal", "each pair"]]
    for row in rows:
        verdict = {None: "", True: " met", False: " missed"}[row.is_met]
        goal = "" if row.goal is None else f"{'≤' if row.better == 'less' else '≥'} {row.goal:g}{verdict}"
        numbers = ("" if value is None else f"{value:.4g}" for value in (row.ours, row.other, row.ratio))
        cells.append([row.what, *numbers, goal, " ".join(f"{value:.3f}" for value in row.each)])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([title, "", lines[0], rule, *lines[1:]])


def _beside(
    what: str,
    ours: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    key: str,
    *,
    goal: float | None = None,
) -> Row:
    return _ratio(what, [run[key] for run in ours], [run[key] for run in others], goal=goal)


def _ratio(what: str, ours: Sequence[float], others: Sequence[float], *, goal: float | None = None) -> Row:
    each = tuple(a / b for a, b in zip(ours, others, strict=True))
    median = statistics.median
    return Row(what, median(ours), median(others), median(each), goal, "less", each)


def _of_limit(what: str, rates: Sequence[float], limit: float, *, goal: float | None = None) -> Row:
    rate = statistics.median(rates)
    return Row(what, rate, limit, rate / limit, goal, "more", tuple(r / limit for r in rates))


def _median(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.median(float(run[key]) for run in runs)
