"""Step 0: look at every image once.

Reads the images that `data` names. Writes `manifest.jsonl`, `classes.json`, `source.json`, `ledger.jsonl` and pictures
of what is there, of what was rejected or flagged, and of what is there twice. Decides which images are used, in which
split, and the order of the classes.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipeline.console import progress_bar
from pipeline.data.decode import DecodeError, decode
from pipeline.data.found import UNLABELLED
from pipeline.data.ingest import Ingested, ingest
from pipeline.data.ledger import LedgerLine, RejectedError, count_verdicts
from pipeline.data.manifest import write_manifest
from pipeline.data.reader import FactsCache, read_facts
from pipeline.data.sources import open_source, typed_root
from pipeline.files import write_jsonl
from pipeline.places import state_dir
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.plots import plot_class_counts
from pipeline.settings import SettingsError
from pipeline.stage import Metrics, Stage, StageContext, main

SHOWN_CLASSES = 12
SHOWN_PER_CLASS = 8
SHOWN_TROUBLES = 24
SHOWN_TWINS = 12


def run(context: StageContext) -> Metrics:
    """Check, hash and divide all images."""
    data = context.settings.data
    source = open_source(data, out=context.out)
    found = list(source.find())
    files = [f.path for f in found if not f.problem]
    cache = FactsCache(state_dir() / "images.sqlite", background=data.background)
    with progress_bar("ingest", len(files)) as bar:
        workers = context.runtime.workers
        facts = read_facts(source.root, files, background=data.background, workers=workers, bar=bar, cache=cache)
        try:
            result = ingest(found, facts, data, seed=context.settings.seed)
        except RejectedError as error:
            raise SettingsError(f"{error}\n  every file's line: {_keep_ledger(error.ledger)}") from None
        finally:
            cache.close()
    write_manifest(context.out, result.samples, result.classes, root=typed_root(data))
    write_jsonl(context.out / "ledger.jsonl", result.ledger)
    _draw(result, source.root, context)
    metrics = _count(result)
    _say(result, metrics, context)
    return metrics


def _keep_ledger(ledger: Sequence[LedgerLine]) -> Path:
    """Write the ledger where it stays though the stage fails."""
    file = state_dir() / "errors" / "ledger.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(file, ledger)
    return file


def _count(result: Ingested) -> Metrics:
    return {
        "found": len(result.ledger),
        "used": len(result.samples),
        **count_verdicts(result.ledger),
        "classes": len(result.classes),
        "images": {split: sum(by_class.values()) for split, by_class in result.counts().items()},
        "unlabelled": sum(s.split == UNLABELLED for s in result.samples),
        "copies": sum(t.exact for t in result.twins),
        "near_copies": sum(not t.exact for t in result.twins),
        "copies_across_splits": sum(t.crosses_splits for t in result.twins),
        "copies_across_labels": sum(t.crosses_labels for t in result.twins),
    }


def _say(result: Ingested, metrics: Metrics, context: StageContext) -> None:
    context.say(
        f"{metrics['used']} images in {len(result.classes)} classes ("
        + ", ".join(f"{n} {split}" for split, n in metrics["images"].items())
        + f"); {metrics['converted']} converted, {metrics['flagged']} flagged, {metrics['rejected']} rejected"
    )
    if metrics["unlabelled"]:
        context.say(f"{metrics['unlabelled']} images without a label, for predictions only")
    if result.twins:
        context.say(
            f"{metrics['copies']} copies and {metrics['near_copies']} near copies, {metrics['copies_across_splits']} "
            f"across splits and {metrics['copies_across_labels']} across labels (data.duplicates="
            f"{context.settings.data.duplicates})"
        )
    for verdict in ("rejected", "flagged"):
        for line in [x for x in result.ledger if x.verdict == verdict][:5]:
            context.say(f"{verdict} {line.path!r}: {line.reason}")


def _draw(result: Ingested, root: Path, context: StageContext) -> None:
    plot_class_counts(context.out / "class_counts.png", counts=result.counts())

    def show(path: str) -> Image.Image | None:
        try:
            return decode(root / path, background=context.settings.data.background).image
        except DecodeError:
            return None

    def shown(*paths: str) -> list[Image.Image]:
        return [image for path in paths if (image := show(path)) is not None]

    training = [s for s in result.samples if s.split == "train"]
    rows = [
        (name, shown(*[s.path for s in training if s.label == name][:SHOWN_PER_CLASS]))
        for name in result.classes[:SHOWN_CLASSES]
    ]
    contact_sheet(context.out / "samples.png", rows=rows)
    troubles = [x for verdict in ("rejected", "flagged") for x in result.ledger if x.verdict == verdict]
    if troubles:
        rows = [(f"{x.path}: {x.reason}", shown(x.path)) for x in troubles[:SHOWN_TROUBLES]]
        contact_sheet(context.out / "troubles.png", rows=rows)
    if result.twins:
        grave = sorted(result.twins, key=lambda t: (not t.crosses_labels, not t.crosses_splits, t.exact))
        rows = [(f"{t.first.path} = {t.second.path}", shown(t.first.path, t.second.path)) for t in grave[:SHOWN_TWINS]]
        contact_sheet(context.out / "duplicates.png", rows=rows)


STAGE = Stage(
    name="ingest",
    run=run,
    settings=(
        "seed",
        "data.name",
        "data.root",
        "data.dataset",
        "data.group",
        "data.background",
        "data.split",
        "data.train_fraction",
        "data.on_reject",
        "data.max_rejected",
        "data.duplicates",
    ),
    inputs=("config/data.json",),
    uses_torch=False,
)

if __name__ == "__main__":
    main(STAGE)
