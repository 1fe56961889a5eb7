"""Step 1: enable augmentation.

Reads the `augment` settings, the list of images, and the filter that the architecture's weights expect. Writes
`policy.yaml`, which every later stage builds its views from, and `samples.json`: which images are shown beside which of
their random views, to be looked at before anything trains.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.data.augment import Policy, write_policy
from pipeline.data.decode import Framing
from pipeline.data.images import targets_of
from pipeline.data.manifest import Manifest, Sample, read_manifest
from pipeline.files import write_json
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.model.backbone import interpolation_of
from pipeline.settings import Augment, FramingSettings

SHOWN_IMAGES = 8
SHOWN_VIEWS = 7


@dataclass(frozen=True)
class ModelReads:
    arch: str


@dataclass(frozen=True)
class Reads:
    seed: int
    augment: Augment
    data: FramingSettings
    model: ModelReads


def run(context: StageContext[Reads]) -> Metrics:
    """Resolve the policy, and choose what is shown of it."""
    seed, data, augment = context.settings.seed, context.settings.data, context.settings.augment
    interpolation = interpolation_of(context.settings.model.arch)
    framing = Framing(data.image_size, data.fit, data.background, data.margin, interpolation)
    write_policy(context.out / "policy.yaml", augment, framing)
    shown = _one_per_class(read_manifest(context.input("ingest")))
    rows = [
        {
            "label": sample.label,
            "path": sample.path,
            "sha256": sample.sha256,
            "seeds": [[seed, "contact sheet", view, sample.sha256] for view in range(SHOWN_VIEWS)],
        }
        for sample in shown
    ]
    write_json(context.out / "samples.json", {"image_size": data.image_size, "rows": rows})
    return {"num_transforms": len(Policy(augment, framing).steps)}


def _one_per_class(manifest: Manifest) -> list[Sample]:
    train = manifest.of("train")
    classes, first = np.unique(targets_of(train, manifest.classes), return_index=True)
    return [train[int(row)] for row in first[classes < SHOWN_IMAGES]]


STAGE = Stage(name="augment_config", run=run, reads=Reads, inputs=(Input("ingest"),))

if __name__ == "__main__":
    main(STAGE)
