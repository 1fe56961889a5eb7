"""Step 0: look at every image once.

Reads the images that `data` names. Writes `manifest.jsonl`, `classes.json` and `source.json` (which images are used, in
which split, and the order of the classes), `ledger.jsonl` (what became of every file), `class_counts.json`,
`duplicates.jsonl` and `notes.json` (what to know about the images before a result is trusted).
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.dropped import REASON, drop_listed
from pipeline.data.duplicates import write_duplicates
from pipeline.data.ingest import IngestResult, ingest
from pipeline.data.manifest import write_manifest
from pipeline.data.reader import FactsCache, read_facts
from pipeline.data.register import Register
from pipeline.data.sources import open_source, typed_root
from pipeline.files import digest, write_json, write_jsonl
from pipeline.harness.fingerprints import code_fingerprint
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.paths import state_dir
from pipeline.settings import DataSource, SettingsError


@dataclass(frozen=True)
class DataReads(DataSource):
    background: str


@dataclass(frozen=True)
class Reads:
    seed: int
    data: DataReads


def run(context: StageContext[Reads]) -> Metrics:
    """Check, hash and split all images."""
    data, out = context.settings.data, context.out
    source = open_source(data, out=out)
    with closing(Register()) as register:
        register.add_found(drop_listed(source.find(), data))
        try:
            result = _look(register, source.root, context)
        except SettingsError as error:
            if not any(register.ledger(limit=1)):
                raise
            raise SettingsError(f"{error}\n  every file's line: {_keep_ledger(register)}") from None
        write_manifest(out, register.samples(), result.classes, root=typed_root(data))
        write_jsonl(out / "ledger.jsonl", register.ledger())
        write_json(out / "class_counts.json", register.counts())
        write_duplicates(out / "duplicates.jsonl", result.duplicates)
        write_json(out / "notes.json", [*source.notes, *result.notes])
        dropped = sum(line.reason.startswith(REASON) for line in register.ledger("ignored"))
        return _count(result) | ({"dropped": dropped} if data.drop else {})


def _look(register: Register, root: Path, context: StageContext[Reads]) -> IngestResult:
    """Read what was never read, or has changed since, and decide on all."""
    data, workers = context.settings.data, context.runtime.workers
    made_by = digest([data.background, code_fingerprint("pipeline.data.facts")])
    with (
        closing(FactsCache(state_dir() / "images.sqlite", made_by=made_by)) as cache,
        context.progress(register.count_to_read()) as bar,
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


def _count(result: IngestResult) -> Metrics:
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
        "copies": sum(t.exact for t in result.duplicates),
        "near_copies": sum(not t.exact for t in result.duplicates),
        "copies_across_splits": sum(t.crosses_splits for t in result.duplicates),
        "copies_across_labels": sum(t.crosses_labels for t in result.duplicates),
    }


STAGE = Stage(name="ingest", run=run, reads=Reads, inputs=(Input("config", "data.json"),), uses_torch=False)

if __name__ == "__main__":
    main(STAGE)
