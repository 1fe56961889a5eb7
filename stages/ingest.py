"""Step 0: look at every image once.

Reads the images that `data` names. Writes `manifest.jsonl`, `classes.json`, `source.json`, `ledger.jsonl` and pictures
of what is there and of what was rejected. Decides which images are used, in which split, and the order of the classes.
"""

from pathlib import Path

from pipeline.console import progress_bar
from pipeline.data.decode import decode
from pipeline.data.ingest import Ingested, ingest
from pipeline.data.manifest import write_manifest
from pipeline.data.sources import open_source
from pipeline.files import write_jsonl
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.plots import plot_class_counts
from pipeline.stage import Metrics, Stage, StageContext, main

SHOWN_CLASSES = 12
SHOWN_PER_CLASS = 8


def run(context: StageContext) -> Metrics:
    """Check, hash and divide all images."""
    data = context.settings.data
    source = open_source(data, out=context.out)
    found = list(source.find())
    with progress_bar("ingest", len(found)) as bar:
        result = ingest(source, found, data, seed=context.settings.seed, bar=bar)
    write_manifest(context.out, result.samples, result.classes, root=data.root)
    write_jsonl(context.out / "ledger.jsonl", result.ledger)
    plot_class_counts(context.out / "class_counts.png", counts=result.counts())
    _draw_samples(result, source.root, context)
    metrics = _count(result, len(found))
    context.say(
        f"{metrics['accepted']} images in {len(result.classes)} classes ("
        + ", ".join(f"{n} {split}" for split, n in metrics["images"].items())
        + f"); {metrics['converted']} converted, {metrics['rejected']} rejected"
    )
    for line in [x for x in result.ledger if x.verdict == "rejected"][:5]:
        context.say(f"rejected {line.path!r}: {line.reason}")
    return metrics


def _count(result: Ingested, num_found: int) -> Metrics:
    verdicts = [line.verdict for line in result.ledger]
    return {
        "found": num_found,
        "accepted": len(result.samples),
        "converted": verdicts.count("converted"),
        "rejected": verdicts.count("rejected"),
        "classes": len(result.classes),
        "images": {split: sum(by_class.values()) for split, by_class in result.counts().items()},
    }


def _draw_samples(result: Ingested, root: Path, context: StageContext) -> None:
    rows = []
    for name in result.classes[:SHOWN_CLASSES]:
        members = [s for s in result.samples if s.label == name and s.split == "train"][:SHOWN_PER_CLASS]
        background = context.settings.data.background
        rows.append((name, [decode(root / s.path, background=background).image for s in members]))
    contact_sheet(context.out / "samples.png", rows=rows)


STAGE = Stage(
    name="ingest",
    run=run,
    settings=("seed", "data.name", "data.root", "data.background", "data.split", "data.train_fraction"),
    inputs=("config/data.json",),
    uses_torch=False,
)

if __name__ == "__main__":
    main(STAGE)
