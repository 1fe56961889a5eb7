"""What precomputing activations changes: time per epoch, equality of features, and the head that comes out.

`python -m benchmarks.precompute [--epochs 10] [--views 0 1 4 9] [--overrides ...]` runs the stages up to the finder,
then trains the same fresh head for the same epochs on activations of the plain images (views 0), on those of stored
views, and through the frozen backbone on images that are augmented anew in each epoch.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from pipeline.data.augment import read_policy
from pipeline.data.images import open_images_of
from pipeline.data.manifest import read_manifest
from pipeline.files import read_json
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.journal import Journal
from pipeline.learning.activation_learners import first_head_on_activations
from pipeline.learning.image_learners import head_behind_backbone, open_images
from pipeline.learning.loop import Learner, Plan, fit
from pipeline.learning.overfitting import best_cycle
from pipeline.model.card import load_card
from pipeline.model.classifier import assemble
from pipeline.model.tensors import read_tensors
from pipeline.settings import Runtime, Settings, read_settings, with_environment
from pipeline.workspace import Workspace
from stages import STAGES
from stages.registry import ALL


def main() -> None:
    """Train a head in each way, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--views", type=int, nargs="+", default=[0, 1, 4, 9])
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        for views in arguments.views:
            params = compose([*arguments.overrides, f"precompute.views={views}"])
            settings, root = read_settings(params, source="conf/"), Path(folder) / str(views)
            runtime = with_environment(settings.runtime)
            artifacts = run_stages(ALL, params, root, only=STAGES[: STAGES.index("lr_find_head") + 1])
            learner = first_head_on_activations(
                artifacts / "precompute", runtime, micro_batch_size=settings.data.micro_batch_size
            )
            name = f"{views} views, precomputed in {_seconds(root, 'precompute'):.1f} s"
            print(_row(name, learner, settings, artifacts, arguments.epochs))
        learner = _through_backbone(artifacts, settings, runtime)
        print(_row("through the backbone, augmented anew", learner, settings, artifacts, arguments.epochs))
        print(f"largest difference of a feature, precomputed and not: {_difference(artifacts, settings):.2g}")


def _seconds(root: Path, stage: str) -> float:
    """How long the stage took, by its own record."""
    digest = read_json(root / "artifacts" / stage / "stage.json")["digest"]
    return float(read_json(root / ".unfreeze" / "timings" / f"{digest}.json")["seconds"])


def _row(name: str, learner: Learner, settings: Settings, artifacts: Path, epochs: int) -> str:
    """Train for `epochs` in one cycle; seconds are those of training and of validation after each epoch."""
    lr, size = read_json(artifacts / "lr_find_head" / "lr.json")["lr"], settings.data.batch_size
    assert isinstance(size, int)
    plan = Plan(1, epochs, 1, lr, size, 0.9, 0.0, False, "sgdr")
    with tempfile.TemporaryDirectory() as scratch:
        journal, began = Journal(Path(scratch) / "journal.jsonl"), time.monotonic()
        finished = fit(learner, plan, Workspace("head_train", 0, Path(scratch), Path(scratch), journal, 1e9))
        seconds = time.monotonic() - began
        journal.close()
    end = best_cycle(finished.ends)
    scores = f"valid loss {end.valid_loss:.4f}, accuracy {end.valid_accuracy:.4f}"
    return f"{name}: {seconds / epochs:.3f} s an epoch, {scores}"


def _through_backbone(artifacts: Path, settings: Settings, runtime: Runtime) -> Learner:
    """The same fresh head, behind its frozen backbone."""
    sizes, seed = [settings.data.image_size], (0, "benchmark")
    precompute, micro = artifacts / "precompute", settings.data.micro_batch_size
    images = open_images(
        artifacts / "ingest",
        artifacts / "augment_config",
        runtime,
        image_sizes=sizes,
        normalisation=load_card(precompute).normalisation,
        seed=seed,
    )
    return head_behind_backbone(precompute, precompute, images, runtime, micro_batch_size=micro)


@torch.no_grad()
def _difference(artifacts: Path, settings: Settings) -> float:
    """The largest difference between the stored activations of valid and those of each image computed alone."""
    precompute, manifest = artifacts / "precompute", read_manifest(artifacts / "ingest")
    model = assemble(precompute, precompute).eval()
    policy = read_policy(artifacts / "augment_config" / "policy.yaml", image_size=settings.data.image_size)
    images = open_images_of(
        manifest, manifest.of("valid"), policy.framing, normalisation=load_card(precompute).normalisation, workers=0
    )
    stored = read_tensors(precompute / "activations-valid.safetensors")["activations"][0]
    alone = torch.cat([model.backbone(x) for x, _ in images.batches([[i] for i in range(len(stored))], draw=0)])
    return (stored - alone).abs().max().item()


if __name__ == "__main__":
    main()
