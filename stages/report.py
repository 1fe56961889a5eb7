"""The report: every picture, and one page that tells the whole story.

Reads the folders that all stages left. Writes `<stage>/<picture>.png`, `report.html`, `MODEL_CARD.md` and `facts.json`.
It owns the code that draws: when that changes, everything is drawn again in seconds, and nothing trains again.
`facts.json`, and what of it the page shows, is all in which the results of two equal runs differ: date, durations,
commit, and the run before.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import write_json
from pipeline.harness.drawing import draw_once
from pipeline.harness.provenance import gather_facts
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.report.html import write_report
from pipeline.report.model_card import NAME, write_model_card
from pipeline.report.recipe import build_report
from stages import STAGES

REPORTED = tuple(name for name in STAGES if name != "report")


@dataclass(frozen=True)
class Reads:
    """Nothing: what is shown is in the folders."""


def run(context: StageContext[Reads]) -> Metrics:
    """Draw every stage's pictures, and build the page."""
    folders = {name: context.input(name) for name in REPORTED}
    with context.progress(len(REPORTED)) as bar:
        for name in REPORTED:
            pictures = draw_once(name, folders, context.out / name, state=context.state, draw=_draw)
            bar.advance(note=f"{name}: {len(pictures)} pictures")
    facts = gather_facts(folders, context.state)
    write_report(context.out / "report.html", report=build_report(folders, context.out, facts))
    write_json(context.out / "facts.json", dataclasses.asdict(facts))
    write_model_card(context.out / NAME, folders)
    return {"pictures": len(list(context.out.glob("*/*.png")))}


def _draw(stage: str, folders: Mapping[str, Path], out: Path) -> None:
    from pipeline.report.pictures import draw_stage  # here, because it is not needed for what was drawn already

    draw_stage(stage, folders, out)


STAGE = Stage(name="report", run=run, reads=Reads, inputs=tuple(map(Input, REPORTED)), uses_torch=False)

if __name__ == "__main__":
    main(STAGE)
