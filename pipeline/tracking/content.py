"""What a row shows, read from its spec and from artifact folders: curves, scores, settings and files."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.params import flatten
from pipeline.tracking.spec import RowSpec

Points = dict[tuple[str, int], float]
"""Values by metric name and step."""

MODEL_CARD = "MODEL_CARD.md"

PREDICTIONS = "predictions.csv"
"""What the model answers for each test image: later models are compared with it."""

_FORBIDDEN = re.compile(r"[^\w\-. :/]")
"""MLflow refuses names with other characters."""


@dataclass
class Content:
    """The points of a row. Those that are not finite are only counted: MLflow cannot store NaN or infinity."""

    points: Points = field(default_factory=dict)
    num_dropped: int = 0

    def add_journal(self, stage: str, lines: Iterable[str]) -> None:
        """Add the curves of a journal, given as lines of JSON."""
        for line in lines:
            entry = json.loads(line)
            for name, value in entry.get("values", {}).items():  # journals of older versions also hold remarks
                self.add_point(f"{curves_of(stage)}{name}", int(entry["step"]), value)

    def add_point(self, name: str, step: int, value: Any) -> None:
        """Add a number. Other values (strings, lists, booleans) are ignored."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        if math.isfinite(value):
            self.points[safe_name(name), step] = float(value)
        else:
            self.num_dropped += 1


def curves_of(stage: str) -> str:
    """What the names of a stage's curves begin with. They hold what was measured, and nothing that was chosen later."""
    return f"curve/{stage}/"


def read_content(spec: RowSpec) -> Content:
    """Gather the scores, and the curves of all stages."""
    content = Content()
    for name, value in spec.scores.items():
        content.add_point(name, 0, value)
    for stage, folder in spec.folders.items():
        journal = folder / "journal.jsonl"
        if journal.exists():
            content.add_journal(stage, journal.read_text(encoding="utf-8").splitlines())
    return content


def files_of(spec: RowSpec) -> list[tuple[Path, str]]:
    """List the files of the row, each with its folder among the row's artifacts: what was drawn, and the predictions.

    The model is logged as one, see `models.log_model_once`.
    """
    predicted = (folder / PREDICTIONS for stage, folder in spec.folders.items() if stage == "tta_evaluate")
    return drawn_files(spec) + [(file, "evaluation") for file in predicted if file.is_file()]


def drawn_files(spec: RowSpec) -> list[tuple[Path, str]]:
    """List what was drawn: the report and the model card go to the root, `<stage>/*.png` to `pictures/<stage>`."""
    if spec.drawn is None:
        return []
    reports = [(file, "") for file in (spec.drawn / "report.html", spec.drawn / MODEL_CARD) if file.is_file()]
    return reports + [(picture, f"pictures/{picture.parent.name}") for picture in sorted(spec.drawn.glob("*/*.png"))]


def flat_params(spec: RowSpec) -> dict[str, str]:
    """Return the settings as MLflow stores them: dotted names, text of fewer than 6,000 characters."""
    flat = flatten(spec.params)
    texts = {n: v if isinstance(v, str) else json.dumps(v, default=str, ensure_ascii=False) for n, v in flat.items()}
    return {safe_name(n): t if len(t) < 6000 else f"{t[:5990]}..." for n, t in texts.items()}


def safe_name(name: str) -> str:
    """Replace the characters that MLflow refuses in names by `_`."""
    return _FORBIDDEN.sub("_", name)
