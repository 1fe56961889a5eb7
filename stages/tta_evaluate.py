"""The last step: test-time augmentation, and the only use of the test images.

Reads the trained model, the policy, and the images of valid, test and those without a label. Writes the scores (plain
and TTA, per split), `predictions.csv` (and `predictions-unlabelled.csv`), what is drawn of them (`confusion.csv`,
`calibration.csv`, `mistakes.json`), and `model/` with all that prediction needs. Decides, with `weights: chosen`, how
much the plain image weighs, on valid; everything else was chosen before.
"""

from dataclasses import dataclass

from pipeline.data.augment import read_policy
from pipeline.data.found import UNLABELLED
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.evaluation.prediction import TtaCard, save_model_folder
from pipeline.evaluation.scores import (
    SplitPrediction,
    score_split,
    targets_of,
    write_calibration,
    write_confusion,
    write_mistakes,
    write_predictions,
)
from pipeline.evaluation.tta import ImageFile, Probs, TtaPrediction, choose_plain_weight, predict_in_parts
from pipeline.evaluation.views import view_sizes
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.model.card import load_card
from pipeline.model.classifier import check_sizes, load_computation
from pipeline.settings import TtaEvaluate

SHOWN_MISTAKES = 10


@dataclass(frozen=True)
class DataReads:
    micro_batch_size: int


@dataclass(frozen=True)
class Reads:
    seed: int
    tta_evaluate: TtaEvaluate
    data: DataReads


def run(context: StageContext[Reads]) -> Metrics:
    """Predict, score, and gather the model."""
    seed, tta = context.settings.seed, context.settings.tta_evaluate
    manifest, policy_file = read_manifest(context.input("ingest")), context.input("augment_config") / "policy.yaml"
    manifest.require_classes(load_card(context.input("full_train")).classes)
    predictions = _predict(context, manifest)
    unlabelled = predictions.pop(UNLABELLED, None)
    targets = {split: targets_of(manifest, split) for split in predictions}
    chosen = tta.weights == "chosen"
    plain_weight = choose_plain_weight(predictions["valid"], targets["valid"]) if chosen else None
    scored = {
        split: SplitPrediction(p.plain, p.combined(plain_weight), targets[split], p.num_views)
        for split, p in predictions.items()
    }

    metrics: Metrics = {split: score_split(p, seed=seed) for split, p in scored.items()}
    if plain_weight is not None:
        metrics["plain_weight"] = plain_weight
    shown = list(scored)[-1]
    _write_tables(context, manifest, scored[shown], shown)
    _write_predictions(context, manifest, shown, scored[shown].plain, scored[shown].tta)
    if unlabelled is not None:
        _write_predictions(context, manifest, UNLABELLED, unlabelled.plain, unlabelled.combined(plain_weight))
    tta_card = TtaCard(tta, seed, plain_weight)
    save_model_folder(context.out / "model", trained=context.input("full_train"), policy=policy_file, tta_card=tta_card)
    return metrics


def _predict(context: StageContext[Reads], manifest: Manifest) -> dict[str, TtaPrediction]:
    """Predict all views of all images but those of train."""
    settings, trained = context.settings, context.input("full_train")
    tta, card = settings.tta_evaluate, load_card(trained)
    check_sizes(card, view_sizes(tta, card.image_size))
    policy = read_policy(context.input("augment_config") / "policy.yaml", image_size=card.image_size)
    model = load_computation(trained, context.runtime, micro_batch_size=settings.data.micro_batch_size)
    files = {
        split: [ImageFile(manifest.root / s.path, s.sha256) for s in manifest.of(split)]
        for split in (*manifest.splits, UNLABELLED)
        if split != "train" and manifest.of(split)
    }
    passes = 1 if tta.views == 0 else 2
    with context.progress(passes * sum(map(len, files.values()))) as bar:
        predictions = {
            split: predict_in_parts(
                model,
                some,
                tta,
                policy,
                normalisation=card.normalisation,
                seed=settings.seed,
                workers=context.runtime.workers,
                bar=bar,
                scratch=context.scratch / split,
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


def _write_tables(context: StageContext[Reads], manifest: Manifest, prediction: SplitPrediction, split: str) -> None:
    """Write what is drawn of a split's predictions."""
    out, classes = context.out, manifest.classes
    write_confusion(out / "confusion.csv", prediction, classes)
    write_calibration(out / "calibration.csv", prediction)
    write_mistakes(out / "mistakes.json", prediction, manifest.of(split), classes, count=SHOWN_MISTAKES)


STAGE = Stage(
    name="tta_evaluate",
    run=run,
    reads=Reads,
    inputs=tuple(map(Input, ("ingest", "augment_config", "full_train"))),
    objective="valid.plain.log_loss",
)

if __name__ == "__main__":
    main(STAGE)
