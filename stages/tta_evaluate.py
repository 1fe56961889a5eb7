"""The last step: test-time augmentation, and the only use of the test images.

Reads the trained model, the policy, the images of valid, test and those without a label, and a sample of train. Writes
the scores (plain and TTA, per split; with the calibration, on test), `predictions.csv` (and
`predictions-unlabelled.csv`), `answers.csv` for comparisons, what is drawn of them (`confusion.csv`, `classes.csv`,
`calibration.csv`, `mistakes.json` and `doubtful.json` with the places that the network looked at), and `model/` with
all that prediction needs. Decides on valid whether plain images or TTA count (`chosen`), the temperature of the
probabilities that prediction gives and, with `weights: chosen`, how much the plain image weighs; everything else was
chosen before. The scores and tables per split are of the probabilities as they come from the model.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.data.augment import Policy, read_policy
from pipeline.data.found import UNLABELLED
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.evaluation.activation_maps import activation_maps
from pipeline.evaluation.calibration import Calibration, fit_calibration, score_calibration
from pipeline.evaluation.novelty import Novelty, backbone_of, features_of, fit_novelty, spread_sample
from pipeline.evaluation.prediction import TtaCard, save_model_folder
from pipeline.evaluation.scores import (
    Mode,
    SplitPrediction,
    choose_mode,
    confident_mistakes,
    describe_answers,
    doubtful_hits,
    score_split,
    targets_of,
    write_answers,
    write_calibration,
    write_classes,
    write_confusion,
    write_predictions,
)
from pipeline.evaluation.tta import ImageFile, Probs, TtaPrediction, choose_plain_weight, predict_in_parts
from pipeline.evaluation.views import view_sizes
from pipeline.files import write_json
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.model import ranks
from pipeline.model.card import Card, load_card
from pipeline.model.classifier import check_sizes, load_computation
from pipeline.model.compute import Computation
from pipeline.settings import TtaEvaluate

SHOWN = 12
"""Mistakes, and doubtful hits."""

MAX_COMPARED, MIN_COMPARED = 3000, 300
PASSES_PER_COMPARED = 10
"""Two thirds of the images for novelty are of train, one third of valid: one image for this many that were predicted,
within these limits."""


@dataclass(frozen=True)
class DataReads:
    micro_batch_size: int


@dataclass(frozen=True)
class Reads:
    seed: int
    tta_evaluate: TtaEvaluate
    data: DataReads


@dataclass(frozen=True)
class Trained:
    """The trained model, ready to predict."""

    card: Card
    policy: Policy
    computation: Computation


def run(context: StageContext[Reads]) -> Metrics:
    """Predict, score, and gather the model."""
    seed, tta = context.settings.seed, context.settings.tta_evaluate
    manifest, policy_file = read_manifest(context.input("ingest")), context.input("augment_config") / "policy.yaml"
    card = load_card(context.input("full_train"))
    manifest.require_classes(card.classes)
    check_sizes(card, view_sizes(tta, card.image_size))
    model = Trained(
        card,
        read_policy(policy_file, image_size=card.image_size),
        load_computation(
            context.input("full_train"), context.runtime, micro_batch_size=context.settings.data.micro_batch_size
        ),
    )
    predictions = _predict(context, manifest, model)
    ranks.leave()
    features = predictions["valid"].features
    assert features is not None
    unlabelled = predictions.pop(UNLABELLED, None)
    targets = {split: targets_of(manifest, split) for split in predictions}
    chosen = tta.weights == "chosen"
    plain_weight = choose_plain_weight(predictions["valid"], targets["valid"]) if chosen else None
    scored = {
        split: SplitPrediction(p.plain, p.combined(plain_weight), targets[split], p.num_views)
        for split, p in predictions.items()
    }

    passes = sum(int((1 + p.num_views).sum()) for p in scored.values())

    metrics: Metrics = {split: score_split(p, seed=seed) for split, p in scored.items()}
    if plain_weight is not None:
        metrics["plain_weight"] = plain_weight
    metrics["chosen"] = choose_mode(metrics["valid"])
    shown = list(scored)[-1]
    _write_tables(context, manifest, scored, metrics["chosen"])
    _write_shown(context, manifest, model, scored[shown], shown, metrics["chosen"])
    _write_predictions(context, manifest, shown, scored[shown].plain, scored[shown].tta)
    calibrations = _calibrate(scored["valid"])
    metrics["calibration"] = {
        how: _score_calibration(fitted, scored.get("test"), how, seed=seed) for how, fitted in calibrations.items()
    }
    if unlabelled is not None:
        _write_predictions(context, manifest, UNLABELLED, unlabelled.plain, unlabelled.combined(plain_weight))
    save_model_folder(
        context.out / "model",
        trained=context.input("full_train"),
        policy=policy_file,
        tta_card=TtaCard(tta, seed, plain_weight),
        calibrations=calibrations,
        novelty=_novelty(context, manifest, model, torch.from_numpy(features), passes=passes),
    )
    return metrics


def _calibrate(valid: SplitPrediction) -> dict[str, Calibration]:
    return {how: fit_calibration(probs, valid.targets) for how, probs in (("plain", valid.plain), ("tta", valid.tta))}


def _score_calibration(fitted: Calibration, test: SplitPrediction | None, how: str, *, seed: int) -> dict[str, Any]:
    """The temperature, and what it changes on test; on valid, where it was fitted, that would be flattering."""
    if test is None:
        return {"temperature": fitted.temperature}
    probs = test.plain if how == "plain" else test.tta
    return {"temperature": fitted.temperature, "test": score_calibration(fitted, probs, test.targets, seed=seed)}


def _novelty(
    context: StageContext[Reads], manifest: Manifest, model: Trained, valid: Tensor, *, passes: int
) -> Novelty:
    """Gather what new images are compared with, from as many images as cost little beside `passes` predictions.

    `valid` are the features [N, num_features] of all validation images.
    """
    began, seed = time.monotonic(), context.settings.seed
    budget = min(MAX_COMPARED, max(MIN_COMPARED, passes // PASSES_PER_COMPARED))
    chosen = {
        split: spread_sample([s.label for s in manifest.of(split)], count, seed, "novelty", split)
        for split, count in (("train", budget - budget // 3), ("valid", budget // 3))
    }
    samples = manifest.of("train")
    train = features_of(
        model.computation,
        [manifest.root / samples[i].path for i in chosen["train"]],
        model.policy,
        normalisation=model.card.normalisation,
        workers=context.runtime.workers,
    )
    context.timings["novelty_s"] = time.monotonic() - began
    return fit_novelty(train, valid[chosen["valid"]])


def _predict(context: StageContext[Reads], manifest: Manifest, model: Trained) -> dict[str, TtaPrediction]:
    """Predict all views of all images but those of train."""
    tta = context.settings.tta_evaluate
    files = {
        split: [ImageFile(manifest.root / s.path, s.sha256, s.file_sha256) for s in manifest.of(split)]
        for split in (*manifest.splits, UNLABELLED)
        if split != "train" and manifest.of(split)
    }
    passes = 1 if tta.views == 0 else 2
    with context.progress(passes * sum(map(len, files.values()))) as bar:
        predictions = {
            split: predict_in_parts(
                model.computation,
                some,
                tta,
                model.policy,
                normalisation=model.card.normalisation,
                seed=context.settings.seed,
                workers=context.runtime.workers,
                bar=bar,
                scratch=context.scratch / split,
                watched=backbone_of(model.computation.model) if split == "valid" else None,
            )
            for split, some in files.items()
        }
    for split, prediction in predictions.items():
        plain_ms, views_ms = (1000 * seconds / len(files[split]) for seconds in prediction.seconds)
        context.timings[f"{split}/plain_ms_per_image"] = plain_ms
        context.timings[f"{split}/tta_ms_per_image"] = plain_ms + views_ms
    return predictions


def _write_predictions(context: StageContext[Reads], manifest: Manifest, split: str, plain: Probs, tta: Probs) -> None:
    file = context.out / ("predictions-unlabelled.csv" if split == UNLABELLED else "predictions.csv")
    write_predictions(file, manifest.of(split), manifest.classes, plain=plain, tta=tta)


def _write_tables(
    context: StageContext[Reads], manifest: Manifest, scored: Mapping[str, SplitPrediction], mode: Mode
) -> None:
    """Write what is compared and drawn of the predictions: of all splits, and of the one that counts."""
    out, classes, (shown, prediction) = context.out, manifest.classes, list(scored.items())[-1]
    probs, targets = prediction.probs(mode), prediction.targets
    write_answers(out / "answers.csv", scored, {split: manifest.of(split) for split in scored}, classes, mode)
    write_confusion(out / "confusion.csv", probs, targets, classes)
    write_classes(out / "classes.csv", probs, targets, classes)
    write_calibration(out / "calibration.csv", probs, targets)
    context.say(f"on valid {'TTA' if mode == 'tta' else 'plain images'} did better: the tables of {shown} are of that")


def _write_shown(
    context: StageContext[Reads],
    manifest: Manifest,
    model: Trained,
    prediction: SplitPrediction,
    split: str,
    mode: Mode,
) -> None:
    """Write the mistakes and the doubtful hits, each with the places that speak for its answer."""
    probs, targets = prediction.probs(mode), prediction.targets
    for name, rows in (
        ("mistakes.json", confident_mistakes(probs, targets, SHOWN)),
        ("doubtful.json", doubtful_hits(probs, targets, SHOWN)),
    ):
        answers = describe_answers(rows, probs, manifest.of(split), manifest.classes)
        maps = _maps(context, manifest, model, split, rows, probs)
        write_json(context.out / name, [x | {"map": grid} for x, grid in zip(answers, maps, strict=True)])


def _maps(
    context: StageContext[Reads], manifest: Manifest, model: Trained, split: str, rows: Sequence[int], probs: Probs
) -> list[list[list[int]]]:
    began, samples = time.monotonic(), manifest.of(split)
    files = [ImageFile(manifest.root / samples[i].path, samples[i].sha256) for i in rows]
    answers = [int(probs[i].argmax()) for i in rows]
    maps = activation_maps(model.computation, files, answers, model.policy, normalisation=model.card.normalisation)
    context.timings["maps_s"] = context.timings.get("maps_s", 0.0) + time.monotonic() - began
    return [grid.tolist() for grid in maps]


STAGE = Stage(
    name="tta_evaluate",
    run=run,
    reads=Reads,
    is_shared=True,
    inputs=tuple(map(Input, ("ingest", "augment_config", "full_train"))),
    objective="valid.plain.log_loss",
)

if __name__ == "__main__":
    main(STAGE)
