"""All stages in order on a small folder of pictures: what each promises to the next, and to its user."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.decode import Framing
from pipeline.data.found import UNLABELLED
from pipeline.data.images import open_images_of
from pipeline.data.manifest import read_manifest
from pipeline.deployment.predict import main as predict_main
from pipeline.evaluation.answers import answer
from pipeline.evaluation.calibration import at_temperature
from pipeline.evaluation.metrics import log_loss
from pipeline.evaluation.prediction import load_predictor
from pipeline.evaluation.scores import targets_of
from pipeline.files import read_json
from pipeline.harness.by_hand import check_upstream, run_job, upstream_folders
from pipeline.harness.execute import StageFolders, execute
from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.overfitting import best_cycle
from pipeline.learning.snapshots import mean_state
from pipeline.model.card import IMAGENET
from pipeline.model.classifier import assemble, load_classifier
from pipeline.model.tensors import read_tensors, save_tensors
from pipeline.settings import Runtime, SettingsError
from stages import STAGES
from stages.full_train import STAGE as FULL_TRAIN
from stages.head_train import STAGE as HEAD_TRAIN
from stages.registry import ALL
from stages.tta_evaluate import STAGE as TTA_EVALUATE
from tests.conftest import CLASSES, TINY, Compose, Run, publish_again

pytestmark = pytest.mark.xdist_group("recipe")
FRAMING = Framing(32, "zoom", "white")


def test_every_stage_leaves_what_the_design_names(recipe: Run) -> None:
    promised = {
        "ingest": ["manifest.jsonl", "classes.json", "ledger.jsonl", "class_counts.json", "duplicates.jsonl"],
        "augment_config": ["policy.yaml", "samples.json"],
        "precompute": [
            "activations-train.safetensors",
            "activations-valid.safetensors",
            "backbone.safetensors",
            "head.safetensors",
        ],
        "cross_validate": ["predictions.csv", "folds.csv", "suspects.csv"],
        "lr_find_head": ["lr.json", "curve.csv"],
        "head_train": ["head.safetensors", "history.csv", "cycles.json"],
        "head_train_augmented": ["head.safetensors", "history.csv", "cycles.json", "schedule.csv"],
        "unfreeze": ["model.safetensors", "plan.json"],
        "lr_find_full": ["lr.json", "curve.csv"],
        "full_train": ["model.safetensors", "model.json", "verdict.json", "valid.csv", "snapshots/cycle-1.safetensors"],
        "tta_evaluate": [
            *(f"{name}.csv" for name in ("predictions", "answers", "classes", "confusion", "calibration")),
            "mistakes.json",
            "doubtful.json",
            "model",
        ],
        "report": [
            "report.html",
            "facts.json",
            *(f"ingest/{name}.png" for name in ("samples", "class_counts")),
            "augment_config/augmentations.png",
            *(f"{name}/lr_find.png" for name in ("lr_find_head", "lr_find_full")),
            *(f"{name}/learning_curves.png" for name in ("head_train_augmented", "full_train")),
            "head_train/weight_decay.png",
            *(f"{name}/schedule.png" for name in ("head_train_augmented", "full_train")),
            "full_train/sharpness.png",
            *(f"tta_evaluate/{name}.png" for name in ("confusion", "calibration", "mistakes")),
        ],
    }
    assert list(promised) == list(STAGES)
    for stage, names in promised.items():
        for name in [*names, "metrics.json", "stage.json"]:
            assert (recipe.folder(stage) / name).exists(), f"{stage}/{name}"


def test_it_learns(recipe: Run) -> None:
    assert recipe.metrics("full_train")["valid_accuracy"] > 0.8


def test_precomputed_activations_are_the_frozen_backbones_output(recipe: Run) -> None:
    manifest = read_manifest(recipe.folder("ingest"))
    model = assemble(recipe.folder("precompute"), recipe.folder("head_train")).eval()
    for split in ("train", "valid"):
        stored = read_tensors(recipe.folder("precompute") / f"activations-{split}.safetensors")
        images = open_images_of(manifest, manifest.of(split), FRAMING, normalisation=IMAGENET, workers=0)
        with torch.no_grad():
            alone = torch.cat([model.backbone(x) for x, _ in images.batches([[i] for i in range(6)], draw=0)])
        torch.testing.assert_close(stored["activations"][0, :6], alone, rtol=1e-4, atol=1e-5)
        assert torch.equal(stored["targets"], images.targets)


def test_head_training_begins_with_the_head_of_precompute_and_the_report_says_with_which(recipe: Run) -> None:
    model = assemble(recipe.folder("precompute"), recipe.folder("precompute")).eval()
    valid = read_tensors(recipe.folder("precompute") / "activations-valid.safetensors")
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model.head(valid["activations"][0]), valid["targets"])
    before = read_json(recipe.folder("head_train") / "cycles.json")["ends"][0]
    assert before["valid_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert "The head begins with random weights." in (recipe.folder("report") / "report.html").read_text()


@pytest.mark.parametrize("balance", ["none", "weights", "sampler"])
def test_the_head_can_be_solved_or_balanced(
    balance: str, recipe: Run, tmp_path: Path, runtime: Runtime, pictures: Path, compose_conf: Compose
) -> None:
    folders = {name: recipe.folder(name) for name in HEAD_TRAIN.upstream}
    heads = {}
    for solver in ("sgd", "lbfgs"):
        params = compose_conf(*TINY, f"data.root={pictures}", f"head_train={solver}", f"data.balance={balance}")
        out = tmp_path / solver
        metrics = execute(HEAD_TRAIN, params, runtime, StageFolders(folders, out, tmp_path / ".unfreeze"))
        heads[solver] = metrics["valid_loss"]
        assert ("lr" in metrics, (out / "schedule.csv").exists()) == (solver == "sgd", solver == "sgd")
    assert max(heads.values()) < 0.1
    if balance == "none":
        assert (tmp_path / "lbfgs" / "head.safetensors").read_bytes() == (
            recipe.folder("head_train") / "head.safetensors"
        ).read_bytes()


def test_the_head_of_step_4_starts_from_step_3_and_leaves_the_backbone_alone(recipe: Run) -> None:
    unfrozen, _ = load_classifier(recipe.folder("unfreeze"))
    backbone = read_tensors(recipe.folder("precompute") / "backbone.safetensors")
    assert all(torch.equal(unfrozen.backbone.state_dict()[n], t) for n, t in backbone.items())
    head = read_tensors(recipe.folder("head_train_augmented") / "head.safetensors")
    assert all(torch.equal(unfrozen.head.state_dict()[n], t) for n, t in head.items())
    before = read_tensors(recipe.folder("head_train") / "head.safetensors")
    moved = any(not torch.equal(before[n], t) for n, t in head.items())
    kept = read_json(recipe.folder("head_train_augmented") / "cycles.json")["kept"]["cycles"]
    assert moved == (kept != [0])


def test_frozen_batch_norm_is_not_touched_and_every_other_layer_is(recipe: Run) -> None:
    before = read_tensors(recipe.folder("unfreeze") / "model.safetensors")
    after = read_tensors(recipe.folder("full_train") / "snapshots" / "cycle-1.safetensors")
    statistics = [n for n in before if n.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all(torch.equal(before[n], after[n]) for n in statistics)
    model, _ = load_classifier(recipe.folder("unfreeze"))
    convolutions = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(not torch.equal(before[n], after[n]) for n in convolutions)


def test_rates_follow_the_finder_and_the_plan(recipe: Run) -> None:
    found = read_json(recipe.folder("lr_find_head") / "lr.json")["lr"]
    assert recipe.metrics("head_train_augmented")["lr"] == pytest.approx(found / 10)  # the head is solved by then
    assert recipe.metrics("full_train")["lr"] == read_json(recipe.folder("lr_find_full") / "lr.json")["lr"]
    factors = [g["lr_factor"] for g in read_json(recipe.folder("unfreeze") / "plan.json")["groups"]]
    assert factors == pytest.approx([1 / 9, 1 / 3, 1])


def test_the_kept_model_is_the_best_cycles_snapshot(recipe: Run) -> None:
    cycles = read_json(recipe.folder("full_train") / "cycles.json")
    best = best_cycle([CycleEnd(**e) for e in cycles["ends"]]).cycle
    chosen = cycles["kept"]["cycles"]
    assert cycles["verdict"]["best_cycle"] == best
    assert chosen in ([best], [best, 0], [0])  # `cautious`
    assert recipe.metrics("full_train")["kept_cycle"] == (chosen[0] if len(chosen) == 1 else None)
    kept = read_tensors(recipe.folder("full_train") / "model.safetensors")
    states = [
        read_tensors(recipe.folder("full_train") / "snapshots" / f"cycle-{cycle}.safetensors")
        if cycle
        else read_tensors(recipe.folder("unfreeze") / "model.safetensors")
        for cycle in chosen
    ]
    mean = mean_state(states)
    assert all(torch.equal(kept[n], mean[n]) for n in kept)


def test_the_verdict_tells_each_groups_movement_and_each_cycles_sharpness(recipe: Run) -> None:
    verdict = read_json(recipe.folder("full_train") / "verdict.json")
    groups = verdict["similarity"]["groups"]
    assert [g["name"] for g in groups] == ["early", "middle", "head"]
    assert all(g["weights"] > 0 and 0 < g["features_cka"] <= 1 + 1e-9 for g in groups)
    ends = read_json(recipe.folder("full_train") / "cycles.json")["ends"]
    assert [s["cycle"] for s in verdict["sharpness"]] == [e["cycle"] for e in ends]
    gaps = [e["valid_loss"] - e["train_loss"] for e in ends]
    assert [s["generalisation_gap"] for s in verdict["sharpness"]] == pytest.approx(gaps)


def test_scores_agree_with_the_predictions_file(recipe: Run) -> None:
    with (recipe.folder("tta_evaluate") / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = recipe.metrics("tta_evaluate")["test"]
    assert len(rows) == scores["num_images"]
    for how in ("plain", "tta"):
        assert np.mean([r[how] == r["label"] for r in rows]) == pytest.approx(scores[how]["accuracy"])


def test_answers_of_the_chosen_mode_agree_with_the_scores_and_each_shown_image_has_a_map(recipe: Run) -> None:
    folder, metrics = recipe.folder("tta_evaluate"), recipe.metrics("tta_evaluate")
    with (folder / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for split in ("valid", "test"):
        answers = [row for row in rows if row["split"] == split]
        scores = metrics[split][metrics["chosen"]]
        assert np.mean([row["predicted"] == row["label"] for row in answers]) == pytest.approx(scores["accuracy"])
        assert np.mean([float(row["loss"]) for row in answers]) == pytest.approx(scores["log_loss"], abs=1e-5)
    doubtful = read_json(folder / "doubtful.json")
    assert doubtful
    assert all(shown["predicted"] == shown["label"] and np.max(shown["map"]) == 255 for shown in doubtful)
    assert [x["confidence"] for x in doubtful] == sorted(x["confidence"] for x in doubtful)


def test_the_report_says_when_from_which_code_and_with_which_settings(recipe: Run) -> None:
    page = (recipe.folder("report") / "report.html").read_text(encoding="utf-8")
    facts = read_json(recipe.folder("report") / "facts.json")
    assert facts["date"] in page
    assert set(facts["seconds"]) == {name for name in STAGES if name != "report"}
    assert "Tells apart bars, dots and plain" in page
    assert len(page.encode()) < 5_000_000


def test_the_model_folder_alone_predicts_the_same(recipe: Run, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(recipe.folder("tta_evaluate") / "model", tmp_path / "model"))
    manifest = read_manifest(recipe.folder("ingest"))
    files = [manifest.root / s.path for s in manifest.of("test")]
    with (recipe.folder("tta_evaluate") / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    predictor = load_predictor(moved)
    classes = predictor.card.classes
    answers = [a.probs for a in answer(predictor, files)]
    assert [classes[int(p.argmax())] for p in answers if p is not None] == [r["plain"] for r in rows]
    np.testing.assert_allclose([p for p in answers if p is not None], predictor.predict(files), atol=1e-6)
    with_tta = [[float(v) for k, v in r.items() if k.startswith("p(")] for r in rows]
    np.testing.assert_allclose(predictor.predict(files, tta=True, calibrated=False), with_tta, atol=1e-4)


def test_prediction_is_calibrated_and_accuracy_is_not_changed(recipe: Run) -> None:
    model = recipe.folder("tta_evaluate") / "model"
    stored, scores = read_json(model / "calibration.json"), recipe.metrics("tta_evaluate")["calibration"]
    manifest = read_manifest(recipe.folder("ingest"))
    files = [manifest.root / s.path for s in manifest.of("test")]
    targets = targets_of(manifest, "test")
    predictor = load_predictor(model)
    for how, tta in (("plain", False), ("tta", True)):
        raw, calibrated = (predictor.predict(files, tta=tta, calibrated=x) for x in (False, True))
        assert stored[how]["temperature"] == scores[how]["temperature"] != 1
        assert len(stored[how]["scores"]) == len(manifest.of("valid"))
        np.testing.assert_allclose(calibrated, at_temperature(raw, stored[how]["temperature"]), rtol=1e-12)
        assert scores[how]["test"]["log_loss_before"] == pytest.approx(log_loss(raw, targets), rel=1e-4)
        assert scores[how]["test"]["log_loss_after"] == pytest.approx(log_loss(calibrated, targets), rel=1e-4)
        np.testing.assert_array_equal(raw.argmax(axis=1), calibrated.argmax(axis=1))


def test_prediction_gives_sets_of_classes_and_how_unlike_training_an_image_is(
    recipe: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], pictures: Path
) -> None:
    model, picture = recipe.folder("tta_evaluate") / "model", str(pictures / "dots" / "00.jpg")
    strange = tmp_path / "strange.png"
    Image.effect_mandelbrot((40, 40), (-2, -2, 2, 2), 100).convert("RGB").save(strange)
    asked = ["--coverage", "0.8", "--novelty", "--format", "csv"]
    assert predict_main([str(model), picture, str(strange), *asked]) == 0
    known, unknown = csv.DictReader(capfd.readouterr().out.splitlines())
    predictor = load_predictor(model)
    sets = predictor.plain_calibration.sets(predictor.predict([Path(picture)]), 0.8)[0]
    assert (known["file"], known["class"], known["error"]) == (picture, "dots", "")
    assert set(known["set"].split(" | ")) == {CLASSES[i] for i in np.flatnonzero(sets)}
    assert known["set"].split(" | ")[0] == "dots"
    assert float(known["novelty"]) < float(unknown["novelty"]) == 1
    assert predict_main([str(model), picture, "--coverage", "0.999", "--tta"]) == 1
    assert "coverage=0.999 cannot be promised with" in capfd.readouterr().err


def test_model_folders_made_before_the_calibration_predict_as_they_did(
    recipe: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], pictures: Path
) -> None:
    moved = Path(shutil.copytree(recipe.folder("tta_evaluate") / "model", tmp_path / "model"))
    picture = pictures / "bars" / "00.jpg"
    raw = load_predictor(moved).predict([picture], calibrated=False)
    for name in ("calibration.json", "novelty.safetensors"):
        (moved / name).unlink()
    np.testing.assert_array_equal(load_predictor(moved).predict([picture]), raw)
    for asked in (["--coverage", "0.9"], ["--novelty"]):
        assert predict_main([str(moved), str(picture), *asked]) == 1
        assert "dvc repro tta_evaluate" in capfd.readouterr().err


def test_prediction_names_what_is_no_model(
    recipe: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], pictures: Path
) -> None:
    model, picture = str(recipe.folder("tta_evaluate") / "model"), str(pictures / "bars" / "00.jpg")
    assert predict_main([model, picture, "--tta"]) == 0
    assert capfd.readouterr().out.splitlines()[1].startswith(f"{picture}  bars ")
    for arguments, named in (
        ([str(tmp_path), picture], f"{tmp_path} is not a model folder"),
        ([str(recipe.folder("tta_evaluate")), picture], f"take {model}"),
        ([str(recipe.folder("full_train")), picture], "full_train is not a model folder"),
    ):
        assert predict_main(arguments) == 1
        assert named in capfd.readouterr().err


@pytest.mark.slow
def test_another_mode_of_tta_evaluate_with_the_weight_chosen_on_valid(
    recipe: Run, tmp_path: Path, runtime: Runtime, pictures: Path, compose_conf: Compose
) -> None:
    tiny = [x for x in TINY if not x.startswith("tta_evaluate")]
    chosen = ("tta_evaluate=multi_scale", "tta_evaluate.weights=chosen")
    params = compose_conf(*tiny, f"data.root={pictures}", *chosen)
    folders = {name: recipe.folder(name) for name in TTA_EVALUATE.upstream}
    scores = execute(TTA_EVALUATE, params, runtime, StageFolders(folders, tmp_path / "tta", tmp_path / ".unfreeze"))
    plain, tta = scores["valid"]["plain"], scores["valid"]["tta"]
    assert tta["log_loss"] <= plain["log_loss"]
    gain = scores["valid"]["tta_gain"]["log_loss"]
    assert gain["mean"] == pytest.approx(plain["log_loss"] - tta["log_loss"])
    assert gain["low"] <= gain["mean"] <= gain["high"]
    card = read_json(tmp_path / "tta" / "model" / "tta.json")
    assert card["plain_weight"] == scores["plain_weight"]
    with (tmp_path / "tta" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    files = [read_manifest(recipe.folder("ingest")).root / r["path"] for r in rows]
    again = load_predictor(tmp_path / "tta" / "model").predict(files, tta=True, calibrated=False)
    np.testing.assert_allclose(again, [[float(v) for k, v in r.items() if k.startswith("p(")] for r in rows], atol=1e-4)


@pytest.mark.slow
def test_an_ensemble_is_evaluated_and_predicts_as_the_mean_of_its_members(
    recipe: Run, tmp_path: Path, runtime: Runtime, pictures: Path, compose_conf: Compose
) -> None:
    tiny = [x for x in TINY if not x.startswith("tta_evaluate")]
    params = compose_conf(*tiny, f"data.root={pictures}", "tta_evaluate=multi_crop")
    folders = {name: recipe.folder(name) for name in TTA_EVALUATE.upstream}
    folders["full_train"] = Path(shutil.copytree(recipe.folder("full_train"), tmp_path / "full_train"))
    first, second = (
        read_tensors(folders["full_train"] / "snapshots" / f"cycle-{cycle}.safetensors") for cycle in (1, 2)
    )
    second |= {n: t.roll(1, dims=0) for n, t in second.items() if n.startswith("head.2.")}  # takes a class for the next
    joined = {f"members.{k}.{n}": t for k, member in enumerate((first, second)) for n, t in member.items()}
    save_tensors(joined, folders["full_train"] / "model.safetensors")
    publish_again(folders["full_train"])
    execute(TTA_EVALUATE, params, runtime, StageFolders(folders, tmp_path / "tta", tmp_path / ".unfreeze"))
    manifest, model = read_manifest(recipe.folder("ingest")), tmp_path / "tta" / "model"
    files = [manifest.root / s.path for s in manifest.of("test")[:4]]
    with (tmp_path / "tta" / "predictions.csv").open() as file:
        rows = [[float(v) for k, v in r.items() if k.startswith("p(")] for r in csv.DictReader(file)][:4]
    predicted = [load_predictor(model).predict(files, tta=tta, calibrated=False) for tta in (False, True)]
    np.testing.assert_allclose(predicted[1], rows, atol=1e-5)
    each = []
    for member in (first, second):
        save_tensors(member, model / "model.safetensors")
        each.append([load_predictor(model).predict(files, tta=tta, calibrated=False) for tta in (False, True)])
    np.testing.assert_allclose(predicted, np.mean(each, axis=0), atol=1e-5)
    assert not np.allclose(each[0], each[1], atol=0.5)


def test_images_without_a_label_are_predicted_and_not_scored(recipe: Run, tmp_path: Path, runtime: Runtime) -> None:
    folders = {name: recipe.folder(name) for name in TTA_EVALUATE.upstream}
    folders["ingest"] = Path(shutil.copytree(recipe.folder("ingest"), tmp_path / "ingest"))
    known = read_manifest(folders["ingest"]).of("test")[0]
    with (folders["ingest"] / "manifest.jsonl").open("a") as file:
        file.write(json.dumps(dataclasses.asdict(known) | {"label": "", "split": UNLABELLED}) + "\n")
    publish_again(folders["ingest"])
    scores = execute(
        TTA_EVALUATE, recipe.params, runtime, StageFolders(folders, tmp_path / "tta", tmp_path / ".unfreeze")
    )
    assert scores == recipe.metrics("tta_evaluate")
    tables = [tmp_path / "tta" / name for name in ("predictions-unlabelled.csv", "predictions.csv")]
    (row,), (labelled, *_) = (list(csv.DictReader(table.read_text().splitlines())) for table in tables)
    assert row == labelled | {"label": "", "correct": ""}


@pytest.mark.slow
def test_running_again_gives_the_same_bytes(recipe: Run, tmp_path: Path, runtime: Runtime) -> None:
    stages = {s.name: s for s in ALL}
    for name in ("ingest", "lr_find_head", "head_train", "tta_evaluate", "report"):
        stage = stages[name]
        folders = {name: recipe.folder(name) for name in stage.upstream}
        execute(stage, recipe.params, runtime, StageFolders(folders, tmp_path / name, tmp_path / ".unfreeze"))
        if name == "report":  # it says when it was made
            for picture in (tmp_path / name).rglob("*.png"):
                first = recipe.folder(name) / picture.relative_to(tmp_path / name)
                assert picture.read_bytes() == first.read_bytes()
        else:
            again = json.loads((tmp_path / name / "stage.json").read_text())
            assert again == read_json(recipe.folder(name) / "stage.json")


def test_nothing_in_the_folders_knows_where_or_when_it_was_made(recipe: Run) -> None:
    for file in recipe.artifacts.rglob("*"):
        if file.suffix in (".json", ".jsonl", ".csv", ".yaml") and file.name not in ("source.json", "data.json"):
            text = file.read_text()
            if file.name == "stage.json":
                text = json.dumps({**json.loads(text), "settings": {}})
            assert str(recipe.artifacts) not in text
            assert "seconds" not in text or file.name == "facts.json"


def test_a_job_by_hand_reads_upstream_in_place_and_refuses_other_settings(
    recipe: Run, tmp_path: Path, compose_conf: Compose, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.artifacts.parent)
    common = (*TINY, f"data.root={pictures}", "full_train.num_cycles=1", "full_train.snapshots=ensemble")
    objective = run_job([FULL_TRAIN, TTA_EVALUATE], compose_conf(*common), tmp_path / "0", ["x=1"], name="tail")
    scores = read_json(tmp_path / "0" / "tta_evaluate" / "metrics.json")
    assert objective == scores["valid"]["plain"]["log_loss"]
    trained = read_json(tmp_path / "0" / "full_train" / "metrics.json")
    assert trained["epochs"] == 1
    assert objective == pytest.approx(
        trained["valid_loss"], rel=1e-4
    )  # the ensemble, if valid chose one, was published
    with pytest.raises(
        SettingsError, match=r"data\.image_size=48 contradicts artifacts.* made with data\.image_size=32"
    ):
        run_job([FULL_TRAIN], compose_conf(*common, "data.image_size=48"), tmp_path / "1", [], name="full_train")
    assert not (tmp_path / "1").exists()


def test_upstream_means_all_that_led_here(recipe: Run) -> None:
    folders = upstream_folders([FULL_TRAIN], recipe.artifacts)
    assert set(folders) == {"config", *STAGES} - {"cross_validate", "full_train", "tta_evaluate", "report"}
    check_upstream(recipe.params, folders)
    with pytest.raises(FileNotFoundError, match="config is missing: run `dvc repro config` first"):
        check_upstream(recipe.params, {"config": recipe.artifacts / "nowhere" / "config"})
