"""What a run says at its end: the score, where the report is, and what to type next."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from pipeline.report.scores import read_score

WIDTH = 80


def ending(folders: Mapping[str, Path], *, report: Path) -> list[str]:
    """Return the lines of a run that was evaluated, at most 80 columns wide; none for any other.

    `report` is the page, or the folder of the pictures where there is no page. Only a path may be longer.
    """
    score = read_score(folders)
    if score is None:
        return []
    how = "with test-time augmentation" if score.mode == "tta" else "plain images"
    model = folders["tta_evaluate"] / "model"
    lines = textwrap.wrap(f"{score}, {how}.", WIDTH - 9)
    told = [f"Result   {lines[0]}", *(f"{'':9}{line}" for line in lines[1:])]
    return [*told, f"Report   {report}", f"Next     unfreeze predict {model} PHOTO"]
