"""What happens in a network that is trained too long: right and wrong answers, snapshot by snapshot.

`python -m benchmarks.overfitting [--artifacts artifacts] [--cycles 1 4 11 24]` prints, for snapshots of `full_train`,
the loss on the training images without augmentation, the loss on the validation images, how many of those are wrong,
and how much of the validation loss comes from them.
"""

import argparse
from pathlib import Path

import yaml

from pipeline.data.augment import read_policy
from pipeline.data.manifest import read_manifest
from pipeline.evaluation.metrics import log_loss, log_losses
from pipeline.evaluation.scores import targets_of
from pipeline.evaluation.tta import Probs, ViewedFile, look_plain
from pipeline.learning.image_learners import trained_model
from pipeline.model.head import load_card
from pipeline.model.tensors import read_tensors
from pipeline.settings import read_settings, with_environment


def main() -> None:
    """Look at train and valid with each snapshot, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--cycles", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    runtime = with_environment(read_settings(yaml.safe_load(Path("params.yaml").read_text()), source="").runtime)
    trained, manifest = arguments.artifacts / "full_train", read_manifest(arguments.artifacts / "ingest")
    model = trained_model(arguments.artifacts / "unfreeze", runtime, micro_batch_size=64)
    policy = read_policy(
        arguments.artifacts / "augment_config" / "policy.yaml", image_size=load_card(trained).image_size
    )

    def look(split: str) -> Probs:
        files = [ViewedFile(manifest.root / s.path, s.sha256) for s in manifest.of(split)]
        return look_plain(model, files, policy)

    print("| cycle | training loss | validation loss | wrong | of the loss, wrong ones | mean confidence |")
    print("|---|---|---|---|---|---|")
    for cycle in arguments.cycles:
        model.model.load_state_dict(read_tensors(trained / "snapshots" / f"cycle-{cycle}.safetensors"))
        train, valid, targets = look("train"), look("valid"), targets_of(manifest, "valid")
        losses, wrong = log_losses(valid, targets), valid.argmax(axis=1) != targets
        print(
            f"| {cycle} | {log_loss(train, targets_of(manifest, 'train')):.2g} | {losses.mean():.4f} "
            f"| {wrong.sum()} of {len(targets)} | {losses[wrong].sum() / losses.sum():.0%} "
            f"| {valid.max(axis=1).mean():.1%} |"
        )


if __name__ == "__main__":
    main()
