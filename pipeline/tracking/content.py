"""What a row shows, read from artifact folders: points, remarks, files."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.tracking.spec import RowSpec, flatten

Points = dict[tuple[str, int], float]
"""Values by metric name (`<stage>/<name>`) and step."""

_FORBIDDEN = re.compile(r"[^\w\-. :/]")
"""MLflow refuses names with other characters."""


@dataclass
class Content:
    """Points and remarks. MLflow has no place for NaN and stores inf as 1.8e308: such points are only counted."""

    points: Points = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    num_dropped: int = 0

    def add_journal(self, stage: str, lines: Iterable[str]) -> None:
        for line in lines:
            entry = json.loads(line)
            if "note" in entry:
                self.notes.append(f"**{stage}**: {entry['note']}")
            for name, value in entry.get("values", {}).items():
                self.add_point(f"{stage}/{name}", int(entry["step"]), value)

    def add_point(self, name: str, step: int, value: Any) -> None:
        """Add a number; strings, lists and truth values are no points."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        if math.isfinite(value):
            self.points[safe_name(name), step] = float(value)
        else:
            self.num_dropped += 1

    def add_finals(self, stage: str, metrics: dict[str, Any]) -> None:
        """Add scalars at step 0; where a curve has the name, after its end, because the table shows the last point."""
        ends = {name: (step, value) for (name, step), value in sorted(self.points.items())}
        for name, value in flatten(metrics, separator="/").items():
            step, last = ends.get(safe_name(f"{stage}/{name}"), (-1, None))
            if value != last:
                self.add_point(f"{stage}/{name}", step + 1, value)


def read_content(spec: RowSpec) -> Content:
    """Read the journals, scores and timings of all stages."""
    content = Content()
    for stage, folder in spec.folders.items():
        journal = folder / "journal.jsonl"
        if journal.exists():
            content.add_journal(stage, journal.read_text(encoding="utf-8").splitlines())
        metrics = folder / "metrics.json"
        content.add_finals(stage, json.loads(metrics.read_bytes()) if metrics.exists() else {})
        digest = json.loads((folder / "stage.json").read_bytes())["digest"]
        timing = spec.state_dir / "timings" / f"{digest}.json"
        if timing.exists():
            for name, value in json.loads(timing.read_bytes()).items():
                content.add_point(f"{stage}/{name}", 0, value)
    return content


def files_of(spec: RowSpec) -> list[tuple[Path, str]]:
    """Pictures, report and model of all stages, each with its folder among the row's artifacts."""
    files = []
    for stage, folder in spec.folders.items():
        files += [(picture, f"pictures/{stage}") for picture in sorted(folder.glob("*.png"))]
        files += [(report, "") for report in folder.glob("report.html")]
        model = folder / "model"
        files += [(f, str(f.parent.relative_to(folder))) for f in sorted(model.rglob("*")) if f.is_file()]
    return files


def flat_params(spec: RowSpec) -> dict[str, str]:
    """Settings as MLflow stores them: dotted names, text of less than 6,000 characters."""
    flat = flatten(spec.params, separator=".")
    texts = {n: v if isinstance(v, str) else json.dumps(v, default=str, ensure_ascii=False) for n, v in flat.items()}
    return {safe_name(n): t if len(t) < 6000 else f"{t[:5990]}..." for n, t in texts.items()}


def safe_name(name: str) -> str:
    return _FORBIDDEN.sub("_", name)
