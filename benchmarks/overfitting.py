"""What happens in a network that is trained too long: correct and wrong predictions, snapshot by snapshot.

`python -m benchmarks.overfitting [--artifacts artifacts] [--cycles 1 4 11 24]` prints, for snapshots of `full_train`,
the loss on the training images without augmentation, the loss on the validation images, how many predictions are wrong,
and how much of the validation loss comes from those.
"""

import argparse
from pathlib import Path

import yaml

from pipeline.data.augment import read_policy
from pipeline.data.manifest import read_manifest
from pipeline.evaluation.metrics import log_loss, log_losses
from pipeline.evaluation.scores import targets_of
from pipeline.evaluation.tta import ImageFile, Probs, predict_plain
from pipeline.model.card import load_card
from pipeline.model.classifier import load_computation
from pipeline.model.tensors import read_tensors
from pipeline.settings import read_settings, with_environment


def main() -> None:
    """Predict train and valid with each snapshot, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--cycles", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    runtime = with_environment(read_settings(yaml.safe_load(Path("params.yaml").read_text()), source="").runtime)
    trained, manifest = arguments.artifacts / "full_train", read_manifest(arguments.artifacts / "ingest")
    model, card = load_computation(arguments.artifacts / "unfreeze", runtime, micro_batch_size=64), load_card(trained)
    policy = read_policy(arguments.artifacts / "augment_config" / "policy.yaml", image_size=card.image_size)

    def predict(split: str) -> Probs:
        files = [ImageFile(manifest.root / s.path, s.sha256) for s in manifest.of(split)]
        return predict_plain(model, files, policy, normalisation=card.normalisation)

    print("| cycle | training loss | validation loss | wrong | of the loss, wrong ones | mean confidence |")
    print("|---|---|---|---|---|---|")
    for cycle in arguments.cycles:
        model.model.load_state_dict(read_tensors(trained / "snapshots" / f"cycle-{cycle}.safetensors"))
        train, valid, targets = predict("train"), predict("valid"), targets_of(manifest, "valid")
        losses, wrong = log_losses(valid, targets), valid.argmax(axis=1) != targets
        print(
            f"| {cycle} | {log_loss(train, targets_of(manifest, 'train')):.2g} | {losses.mean():.4f} "
            f"| {wrong.sum()} of {len(targets)} | {losses[wrong].sum() / losses.sum():.0%} "
            f"| {valid.max(axis=1).mean():.1%} |"
        )


if __name__ == "__main__":
    main()
