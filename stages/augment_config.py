"""Step 1: enable augmentation.

Reads the `augment` settings and a few images. Writes `policy.yaml`, which every later stage builds its views from, and
a contact sheet of real images beside their augmented views, to be looked at before anything trains.
"""

from PIL import Image

from pipeline.data.augment import Policy, write_policy
from pipeline.data.decode import Framing, decode_framed
from pipeline.data.manifest import Manifest, Sample, read_manifest
from pipeline.harness.stage import Metrics, Stage, StageContext, main
from pipeline.report.contact_sheet import contact_sheet

SHOWN_IMAGES = 8
SHOWN_VIEWS = 7


def run(context: StageContext) -> Metrics:
    """Resolve the policy and show what it does."""
    data, augment = context.settings.data, context.settings.augment
    manifest = read_manifest(context.input("ingest"))
    framing = Framing(data.image_size, data.fit, data.background, data.margin)
    policy = Policy(augment, framing)
    write_policy(context.out / "policy.yaml", augment, framing)
    shown = _one_per_class(manifest)
    rows = [(s.label, _views(s, manifest, policy, framing, context.settings.seed)) for s in shown]
    contact_sheet(context.out / "augmentations.png", rows=rows)
    steps = policy.describe()
    context.say(f"{len(steps)} random transforms" if steps else "no augmentation: training sees plain images")
    return {"num_transforms": len(steps)}


def _one_per_class(manifest: Manifest) -> list[Sample]:
    first = {s.label: s for s in reversed(manifest.of("train"))}
    return [first[name] for name in manifest.classes[:SHOWN_IMAGES]]


def _views(sample: Sample, manifest: Manifest, policy: Policy, framing: Framing, seed: int) -> list[Image.Image]:
    path = manifest.root / sample.path
    plain, base = decode_framed(path, framing), policy.decode_base(path)
    return [plain, *(policy.view(base, seed=(seed, "contact sheet", v, sample.sha256)) for v in range(SHOWN_VIEWS))]


STAGE = Stage(
    name="augment_config",
    run=run,
    settings=("seed", "augment", "data.image_size", "data.fit", "data.margin", "data.background"),
    inputs=("ingest",),
)

if __name__ == "__main__":
    main(STAGE)
