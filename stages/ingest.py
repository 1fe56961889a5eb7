"""Step 0: look at every image once.

Reads the images that `data` names. Writes `manifest.jsonl`, `classes.json`, `source.json`, `ledger.jsonl` and pictures
of what is there, of what was rejected or flagged, and of what is there twice. Decides which images are used, in which
split, and the order of the classes.
"""

from contextlib import closing
from pathlib import Path

from PIL import Image

from pipeline.console import progress_bar
from pipeline.data.decode import DecodeError, decode
from pipeline.data.ingest import Ingested, ingest
from pipeline.data.manifest import write_manifest
from pipeline.data.reader import FactsCache, read_facts
from pipeline.data.register import Register
from pipeline.data.sources import open_source, typed_root
from pipeline.files import write_jsonl
from pipeline.harness.stage import Metrics, Stage, StageContext, main
from pipeline.paths import state_dir
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.plots import plot_class_counts
from pipeline.settings import SettingsError

SHOWN_CLASSES = 12
SHOWN_PER_CLASS = 8
SHOWN_TROUBLES = 24
SHOWN_TWINS = 12


def run(context: StageContext) -> Metrics:
    """Check, hash and divide all images."""
    data = context.settings.data
    source = open_source(data, out=context.out)
    with closing(Register()) as register:
        register.add_found(source.find())
        try:
            result = _look(register, source.root, context)
        except SettingsError as error:
            if not any(register.ledger(limit=1)):
                raise
            raise SettingsError(f"{error}\n  every file's line: {_keep_ledger(register)}") from None
        write_manifest(context.out, register.samples(), result.classes, root=typed_root(data))
        write_jsonl(context.out / "ledger.jsonl", register.ledger())
        _draw(result, source.root, context)
        metrics = _count(result)
        _say(result, metrics, context)
    return metrics


def _look(register: Register, root: Path, context: StageContext) -> Ingested:
    """Read what was never read, or has changed since, and decide on all."""
    data, workers = context.settings.data, context.runtime.workers
    with (
        closing(FactsCache(state_dir() / "images.sqlite", background=data.background)) as cache,
        progress_bar("ingest", register.count_to_read()) as bar,
    ):
        paths = register.paths_to_read()
        facts = read_facts(root, paths, background=data.background, workers=workers, bar=bar, cache=cache)
        return ingest(register, facts, data, seed=context.settings.seed)


def _keep_ledger(register: Register) -> Path:
    """Write the ledger where it stays though the stage fails."""
    file = state_dir() / "errors" / "ledger.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(file, register.ledger())
    return file


def _count(result: Ingested) -> Metrics:
    register, verdicts = result.register, result.register.count_verdicts()
    images = {split: sum(by_class.values()) for split, by_class in register.counts().items()}
    used = register.count_used()
    return {
        "found": sum(verdicts.values()),
        "used": used,
        **verdicts,
        "classes": len(result.classes),
        "images": images,
        "unlabelled": used - sum(images.values()),
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
        for line in result.register.ledger(verdict, limit=5):
            context.say(f"{verdict} {line.path!r}: {line.reason}")


def _draw(result: Ingested, root: Path, context: StageContext) -> None:
    register = result.register
    plot_class_counts(context.out / "class_counts.png", counts=register.counts())

    def show(path: str) -> Image.Image | None:
        try:
            return decode(root / path, background=context.settings.data.background).image
        except DecodeError:
            return None

    def shown(*paths: str) -> list[Image.Image]:
        return [image for path in paths if (image := show(path)) is not None]

    def first_of(label: str) -> list[str]:
        samples = register.samples("split = 'train' AND label = ?", label, limit=SHOWN_PER_CLASS)
        return [s.path for s in samples]

    rows = [(name, shown(*first_of(name))) for name in result.classes[:SHOWN_CLASSES]]
    contact_sheet(context.out / "samples.png", rows=rows)
    troubles = [x for verdict in ("rejected", "flagged") for x in register.ledger(verdict, limit=SHOWN_TROUBLES)]
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
