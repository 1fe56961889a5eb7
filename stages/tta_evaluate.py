"""The last step: test-time augmentation, and the only look at the test images.

Reads the trained model, the policy, and the images of valid and test; for the report also what all steps made. Writes
the scores (plain and TTA, per split), `predictions.csv`, the confusion matrix, calibration, the most confident
mistakes, `report.html`, and `model/` with all that prediction needs. Decides nothing: choices were made on valid.
"""

from pipeline.console import progress_bar
from pipeline.data.augment import read_policy
from pipeline.data.decode import decode
from pipeline.data.images import open_images_of
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.evaluation.metrics import confusion
from pipeline.evaluation.prediction import save_model_folder
from pipeline.evaluation.scores import confident_mistakes, score_split, write_predictions
from pipeline.evaluation.tta import Viewed, predict_views
from pipeline.learning.learners import trained_model
from pipeline.model.head import load_card
from pipeline.report.contact_sheet import Caption, mistakes_sheet
from pipeline.report.html import write_report
from pipeline.report.recipe import build_report
from pipeline.report.score_plots import plot_calibration, plot_confusion
from pipeline.stage import Metrics, Stage, StageContext, main

SHOWN_MISTAKES = 10
REPORTED = ("lr_find_head", "head_train", "head_train_augmented", "unfreeze", "lr_find_full")


def run(context: StageContext) -> Metrics:
    """Predict, score, draw, and gather the model."""
    settings, manifest = context.settings, read_manifest(context.input("ingest"))
    trained = context.input("full_train")
    card, policy_file = load_card(trained), context.input("augment_config") / "policy.yaml"
    manifest.require_classes(card.classes)
    policy = read_policy(policy_file, image_size=card.image_size)
    views = settings.tta_evaluate.views if policy.steps else 0
    if views != settings.tta_evaluate.views:
        context.say("no augmentation is set, so TTA has no views and equals plain")
    learner = trained_model(trained, context.runtime, micro_batch_size=settings.data.micro_batch_size)
    splits = [s for s in manifest.splits if s != "train"]
    viewed: dict[str, Viewed] = {}
    with progress_bar("tta_evaluate", len(splits) * (views + 1)) as bar:
        for split in splits:
            samples, workers = manifest.of(split), context.runtime.workers
            plain = open_images_of(manifest, samples, policy.framing, workers=workers)
            seed = (settings.seed, "tta", split)
            augmented = open_images_of(manifest, samples, policy.framing, workers=workers, policy=policy, seed=seed)
            viewed[split] = predict_views(learner, plain, augmented, views=views, bar=bar)
    metrics: Metrics = {split: score_split(v) for split, v in viewed.items()}
    shown = splits[-1]
    _draw(context, manifest, viewed[shown], shown)
    write_predictions(context.out / "predictions.csv", manifest.of(shown), manifest.classes, viewed[shown])
    save_model_folder(context.out / "model", trained=trained, policy=policy_file)
    folders = {name: context.input(name) for name in ("ingest", "augment_config", "full_train", *REPORTED)}
    report = build_report(metrics=metrics, classes=manifest.classes, folders=folders, out=context.out)
    write_report(context.out / "report.html", report=report)
    for split, v in viewed.items():
        _say(context, metrics[split], v, split, views)
    return metrics


def _draw(context: StageContext, manifest: Manifest, viewed: Viewed, split: str) -> None:
    out, classes, samples = context.out, manifest.classes, manifest.of(split)
    plot_confusion(
        out / "confusion.png", confusion=confusion(viewed.tta, viewed.targets, len(classes)), classes=classes
    )
    right = viewed.tta.argmax(axis=1) == viewed.targets
    plot_calibration(out / "calibration.png", confidence=viewed.tta.max(axis=1), correct=right)
    worst = confident_mistakes(viewed, SHOWN_MISTAKES)
    background = context.settings.data.background
    mistakes_sheet(
        out / "mistakes.png",
        images=[decode(manifest.root / samples[i].path, background=background).image for i in worst],
        captions=[
            Caption(samples[i].path, samples[i].label, classes[int(viewed.tta[i].argmax())], float(viewed.tta[i].max()))
            for i in worst
        ],
    )


def _say(context: StageContext, scores: Metrics, viewed: Viewed, split: str, views: int) -> None:
    plain, tta = scores["plain"], scores["tta"]
    context.say(
        f"{split}: accuracy {plain['accuracy']:.4f} plain, {tta['accuracy']:.4f} with TTA "
        f"(95 % {tta['accuracy_low']:.3f} to {tta['accuracy_high']:.3f}; {views} views, "
        f"{viewed.seconds[1] / max(viewed.seconds[0], 1e-9):.1f} times the time)"
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
