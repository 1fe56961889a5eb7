"""What each mode of test-time augmentation gains and costs, for a trained folder of artifacts.

`python -m benchmarks.tta_modes [--artifacts artifacts] [--weights uniform chosen]` prints a table for the test images:
accuracy, log loss, gains with 95 % intervals (paired bootstrap), McNemar's exact p and milliseconds per image. A mode
with its settings is a file of `conf/tta_evaluate/`; more are tried in LADDER. For looking, not for choosing: a mode
that is picked from this table has seen the test images; `--split valid` is for choosing.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.augment import Policy, read_policy
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.evaluation.scores import Predicted, Targets, score_split, targets_of
from pipeline.evaluation.tta import Viewed, ViewedFile, choose_plain_weight, look
from pipeline.learning.image_learners import trained_model
from pipeline.learning.loop import Computation
from pipeline.model.head import load_card
from pipeline.settings import Runtime, TtaEvaluate, read_settings, with_environment

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
    """Look at the images in every mode, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--weights", nargs="+", default=["uniform"], choices=["uniform", "chosen"])
    arguments = parser.parse_args()
    runtime = with_environment(read_settings(yaml.safe_load(Path("params.yaml").read_text()), source="").runtime)
    trained = arguments.artifacts / "full_train"
    policy = read_policy(
        arguments.artifacts / "augment_config" / "policy.yaml", image_size=load_card(trained).image_size
    )
    manifest, model = read_manifest(arguments.artifacts / "ingest"), _model(trained, runtime)
    print("| mode | plain weighs | accuracy | gain, points | p | log loss | fall of log loss | views | ms an image |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, tta in modes_for(policy).items():
        viewed = _look(model, manifest, arguments.split, tta, policy)
        for weights in arguments.weights:
            weight = None
            if weights == "chosen":
                weight = choose_plain_weight(
                    _look(model, manifest, "valid", tta, policy), targets_of(manifest, "valid")
                )
            print(_row(name, viewed, targets_of(manifest, arguments.split), weight), flush=True)


def modes_for(policy: Policy) -> dict[str, TtaEvaluate]:
    """The modes of LADDER that `policy` allows, by what sets them apart."""
    return {
        " ".join([mode, *(f"{k}={v}" for k, v in changes.items())]): TtaEvaluate(
            **{**yaml.safe_load((CONF / f"{mode}.yaml").read_text()), **changes}
        )
        for mode, changes in LADDER
        if mode != "flip" or policy.flip != "none"
    }


def _model(trained: Path, runtime: Runtime) -> Computation:
    return trained_model(trained, runtime, micro_batch_size=64)


def _look(model: Computation, manifest: Manifest, split: str, tta: TtaEvaluate, policy: Policy) -> Viewed:
    files = [ViewedFile(manifest.root / s.path, s.sha256) for s in manifest.of(split)]
    return look(model, files, tta, policy, seed=0)


def _row(name: str, viewed: Viewed, targets: Targets, weight: float | None) -> str:
    scores = score_split(Predicted(viewed.plain, viewed.combined(weight), targets, viewed.num_views), seed=0)
    gain, fall = scores["tta_gain"]["accuracy"], scores["tta_gain"]["log_loss"]
    plain_ms, views_ms = (1000 * s / len(targets) for s in viewed.seconds)
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
