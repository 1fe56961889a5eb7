"""What each mode of test-time augmentation gains and costs, for a trained folder of artifacts.

`python -m benchmarks.tta_modes [--artifacts artifacts] [--weights uniform chosen]` prints a table for the test images:
accuracy, log loss, gains with 95 % intervals (paired bootstrap), McNemar's exact p and milliseconds per image. A mode
with its settings is a file of `conf/tta_evaluate/`; LADDER has more. Do not choose a mode from this table, which
shows the test images; choose with `--split valid`.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.augment import Policy, read_policy
from pipeline.data.manifest import read_manifest
from pipeline.evaluation.scores import SplitPrediction, Targets, score_split, targets_of
from pipeline.evaluation.tta import ImageFile, TtaPrediction, choose_plain_weight, predict_with_tta
from pipeline.model.card import load_card
from pipeline.model.classifier import load_computation
from pipeline.settings import TtaEvaluate, read_settings, with_environment

CONF = Path("conf/tta_evaluate")
LADDER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("augment", {"views": 4}),
    ("augment", {"views": 16}),
    ("multi_crop", {"zoom": 1.0}),
    ("multi_crop", {"zoom": 1.15}),
    ("sliding_window", {"zoom": 1.0}),
    ("sliding_window", {"zoom": 1.15}),
    ("multi_scale", {"scales": [0.85, 1.15]}),
    ("multi_scale", {"scales": [1.15, 1.3]}),
    ("flip", {}),
)


def main() -> None:
    """Predict the images in every mode, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--weights", nargs="+", default=["uniform"], choices=["uniform", "chosen"])
    arguments = parser.parse_args()
    runtime = with_environment(read_settings(yaml.safe_load(Path("params.yaml").read_text()), source="").runtime)
    trained, manifest = arguments.artifacts / "full_train", read_manifest(arguments.artifacts / "ingest")
    card, computation = load_card(trained), load_computation(trained, runtime, micro_batch_size=64)
    policy = read_policy(arguments.artifacts / "augment_config" / "policy.yaml", image_size=card.image_size)

    def predict(split: str, tta: TtaEvaluate) -> TtaPrediction:
        files = [ImageFile(manifest.root / s.path, s.sha256) for s in manifest.of(split)]
        return predict_with_tta(computation, files, tta, policy, normalisation=card.normalisation, seed=0)

    print("| mode | plain weighs | accuracy | gain, points | p | log loss | fall of log loss | views | ms an image |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, tta in modes_for(policy).items():
        prediction = predict(arguments.split, tta)
        for weights in arguments.weights:
            weight = None
            if weights == "chosen":
                weight = choose_plain_weight(predict("valid", tta), targets_of(manifest, "valid"))
            print(_row(name, prediction, targets_of(manifest, arguments.split), weight), flush=True)


def modes_for(policy: Policy) -> dict[str, TtaEvaluate]:
    """The modes of LADDER that `policy` allows, by name and settings."""
    return {
        " ".join([mode, *(f"{k}={v}" for k, v in changes.items())]): TtaEvaluate(
            **{**yaml.safe_load((CONF / f"{mode}.yaml").read_text()), **changes}
        )
        for mode, changes in LADDER
        if mode != "flip" or policy.flip != "none"
    }


def _row(name: str, prediction: TtaPrediction, targets: Targets, weight: float | None) -> str:
    scores = score_split(
        SplitPrediction(prediction.plain, prediction.combined(weight), targets, prediction.num_views), seed=0
    )
    gain, fall = scores["tta_gain"]["accuracy"], scores["tta_gain"]["log_loss"]
    plain_ms, views_ms = (1000 * s / len(targets) for s in prediction.seconds)
    return (
        f"| {name} | {'as a view' if weight is None else f'{weight:.0%}'} "
        f"| {scores['plain']['accuracy']:.4f} to {scores['tta']['accuracy']:.4f} "
        f"| {100 * gain['mean']:+.2f} ({100 * gain['low']:+.2f} to {100 * gain['high']:+.2f}) "
        f"| {scores['tta_gain_p_value']:.2g} | {scores['plain']['log_loss']:.4f} to {scores['tta']['log_loss']:.4f} "
        f"| {fall['mean']:+.4f} ({fall['low']:+.4f} to {fall['high']:+.4f}) "
        f"| {scores['num_views']:.3g} | {plain_ms:.3g} to {plain_ms + views_ms:.3g} |"
    )


if __name__ == "__main__":
    main()
