"""The last step: test-time augmentation, and the only look at the test images.

Reads the trained model, the policy, and the images of valid, test and those without a label; for the report also what
all steps made. Writes the scores (plain and TTA, per split), `predictions.csv` (and `predictions-unlabelled.csv`), the
confusion matrix, calibration, the most confident mistakes, `report.html`, and `model/` with all that prediction needs.
Decides, where `weights: chosen` says so, how much the plain image weighs, on valid; all else was chosen before.
"""

from pipeline.console import progress_bar
from pipeline.data.augment import read_policy
from pipeline.data.decode import decode
from pipeline.data.found import UNLABELLED
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.evaluation.metrics import confusion
from pipeline.evaluation.prediction import TtaCard, save_model_folder
from pipeline.evaluation.scores import Predicted, confident_mistakes, score_split, targets_of, write_predictions
from pipeline.evaluation.tta import Probs, Viewed, ViewedFile, choose_plain_weight, look_in_parts
from pipeline.evaluation.views import view_sizes
from pipeline.harness.stage import Metrics, Stage, StageContext, main
from pipeline.learning.image_learners import check_sizes, trained_model
from pipeline.model.head import load_card
from pipeline.report.contact_sheet import Caption, mistakes_sheet
from pipeline.report.html import write_report
from pipeline.report.recipe import build_report
from pipeline.report.score_plots import plot_calibration, plot_confusion

SHOWN_MISTAKES = 10
REPORTED = ("precompute", "lr_find_head", "head_train", "head_train_augmented", "unfreeze", "lr_find_full")


def run(context: StageContext) -> Metrics:
    """Predict, score, draw, and gather the model."""
    seed, tta = context.settings.seed, context.settings.tta_evaluate
    manifest, policy_file = read_manifest(context.input("ingest")), context.input("augment_config") / "policy.yaml"
    manifest.require_classes(load_card(context.input("full_train")).classes)
    viewed = _look(context, manifest)
    unlabelled = viewed.pop(UNLABELLED, None)
    targets = {split: targets_of(manifest, split) for split in viewed}
    chosen = tta.weights == "chosen"
    plain_weight = choose_plain_weight(viewed["valid"], targets["valid"]) if chosen else None
    predicted = {s: Predicted(v.plain, v.combined(plain_weight), targets[s], v.num_views) for s, v in viewed.items()}

    metrics: Metrics = {split: score_split(p, seed=seed) for split, p in predicted.items()}
    if plain_weight is not None:
        metrics["plain_weight"] = plain_weight
    shown = list(predicted)[-1]
    _draw(context, manifest, predicted[shown], shown)
    _write(context, manifest, shown, predicted[shown].plain, predicted[shown].tta)
    if unlabelled is not None:
        _write(context, manifest, UNLABELLED, unlabelled.plain, unlabelled.combined(plain_weight))
    tta_card = TtaCard(tta, seed, plain_weight)
    save_model_folder(context.out / "model", trained=context.input("full_train"), policy=policy_file, tta_card=tta_card)
    folders = {name: context.input(name) for name in ("ingest", "augment_config", "full_train", *REPORTED)}
    report = build_report(
        metrics=metrics, classes=manifest.classes, folders=folders, out=context.out, tta_card=tta_card
    )
    write_report(context.out / "report.html", report=report)
    for split in viewed:
        _say(context, metrics[split], viewed[split], split)
    return metrics


def _look(context: StageContext, manifest: Manifest) -> dict[str, Viewed]:
    """Predict all views of all images but those of train."""
    settings, trained = context.settings, context.input("full_train")
    tta, card = settings.tta_evaluate, load_card(trained)
    check_sizes(card, view_sizes(tta, card.image_size))
    policy = read_policy(context.input("augment_config") / "policy.yaml", image_size=card.image_size)
    model = trained_model(trained, context.runtime, micro_batch_size=settings.data.micro_batch_size)
    files = {
        split: [ViewedFile(manifest.root / s.path, s.sha256) for s in manifest.of(split)]
        for split in (*manifest.splits, UNLABELLED)
        if split != "train" and manifest.of(split)
    }
    passes = 1 if tta.views == 0 else 2
    with progress_bar(context.stage.name, passes * sum(map(len, files.values()))) as bar:
        viewed = {
            split: look_in_parts(
                model,
                some,
                tta,
                policy,
                seed=settings.seed,
                workers=context.runtime.workers,
                bar=bar,
                kept=context.scratch / split,
            )
            for split, some in files.items()
        }
    if not any(v.num_views.any() for v in viewed.values()):
        context.say("no image has a view that shows more than the plain one, so TTA equals plain")
    return viewed


def _write(context: StageContext, manifest: Manifest, split: str, plain: Probs, tta: Probs) -> None:
    file = context.out / ("predictions-unlabelled.csv" if split == UNLABELLED else "predictions.csv")
    write_predictions(file, manifest.of(split), manifest.classes, plain=plain, tta=tta)


def _draw(context: StageContext, manifest: Manifest, predicted: Predicted, split: str) -> None:
    out, classes, samples = context.out, manifest.classes, manifest.of(split)
    tta, targets = predicted.tta, predicted.targets
    plot_confusion(out / "confusion.png", confusion=confusion(tta, targets, len(classes)), classes=classes)
    plot_calibration(out / "calibration.png", confidence=tta.max(axis=1), correct=tta.argmax(axis=1) == targets)
    worst = confident_mistakes(predicted, SHOWN_MISTAKES)
    background = context.settings.data.background
    mistakes_sheet(
        out / "mistakes.png",
        images=[decode(manifest.root / samples[i].path, background=background).image for i in worst],
        captions=[
            Caption(samples[i].path, samples[i].label, classes[int(tta[i].argmax())], float(tta[i].max()))
            for i in worst
        ],
    )


def _say(context: StageContext, scores: Metrics, viewed: Viewed, split: str) -> None:
    plain, tta, gain = scores["plain"], scores["tta"], scores["tta_gain"]["accuracy"]
    plain_ms, views_ms = (1000 * s / scores["num_images"] for s in viewed.seconds)
    context.timings.update({f"{split}/plain_ms_per_image": plain_ms, f"{split}/tta_ms_per_image": plain_ms + views_ms})
    context.say(
        f"{split}: accuracy {plain['accuracy']:.4f} plain, {tta['accuracy']:.4f} with TTA "
        f"(95 % {tta['accuracy_low']:.3f} to {tta['accuracy_high']:.3f}); gain {100 * gain['mean']:+.2f} points "
        f"({100 * gain['low']:+.2f} to {100 * gain['high']:+.2f}, p = {scores['tta_gain_p_value']:.2g}); "
        f"{scores['num_views']:.3g} views; {plain_ms:.3g} and {plain_ms + views_ms:.3g} ms an image"
    )


STAGE = Stage(
    name="tta_evaluate",
    run=run,
    settings=("seed", "tta_evaluate", "data.background", "data.micro_batch_size"),
    inputs=("ingest", "augment_config", "full_train", *REPORTED),
    objective="valid.plain.log_loss",
)

if __name__ == "__main__":
    main(STAGE)
