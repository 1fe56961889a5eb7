"""Numbers that go wrong: one clear error, nothing broken is kept, and without the cause the same bytes as ever."""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from pipeline.evaluation.tta import ImageFile, predict_with_tta
from pipeline.files import write_json
from pipeline.harness.execute import StageFolders, execute
from pipeline.harness.fingerprints import write_fingerprints
from pipeline.journal import Journal
from pipeline.kept import read_sealed
from pipeline.learning import head_solver, logistic
from pipeline.learning.cross_validation import cross_validate
from pipeline.learning.head_solver import follow_path
from pipeline.learning.loop import Learner, fit
from pipeline.learning.lr_sweep import plan_sweeps, sweep
from pipeline.learning.soundness import DivergedError
from pipeline.learning.sources import TensorBatches
from pipeline.model.card import IMAGENET
from pipeline.model.compute import Computation, forward
from pipeline.model.finite import all_finite
from pipeline.model.head import build_head
from pipeline.model.tensors import read_tensors, save_tensors
from pipeline.model.weights import load_pretrained
from pipeline.numbers import NumbersError
from pipeline.settings import OptimizerName, Runtime, read_settings
from pipeline.workspace import Bar, Workspace
from stages.precompute import STAGE
from tests.conftest import Run
from tests.pipeline.evaluation.test_tta import files as files  # a fixture
from tests.pipeline.evaluation.test_tta import policy, tta
from tests.pipeline.learning.test_cross_validation import clusters
from tests.pipeline.learning.test_head_solver import samples
from tests.pipeline.learning.test_loop import PLAN, build_model, learner
from tests.pipeline.learning.test_lr_find import SETTINGS

Fault = Callable[[Learner, pytest.MonkeyPatch], None]
NAN, INF = math.nan, math.inf
LAST = 14
"""The number of the last of PLAN's steps."""


def inputs(split: str, value: float) -> Fault:
    """A value of one image is broken."""

    def break_it(made: Learner, _: pytest.MonkeyPatch) -> None:
        source = getattr(made, split)
        assert isinstance(source, TensorBatches)
        source.inputs[3, 2] = value

    return break_it


def _at_training_pass(model: nn.Module, number: int, action: Callable[[Tensor], Tensor]) -> None:
    seen = 0

    def hook(module: nn.Module, _: object, output: Tensor) -> Tensor:
        nonlocal seen
        seen += module.training
        return action(output) if module.training and seen == number + 1 else output

    model.register_forward_hook(hook)


def loss(step: int, value: float) -> Fault:
    def break_it(made: Learner, _: pytest.MonkeyPatch) -> None:
        _at_training_pass(made.model, step, lambda logits: logits * value)

    return break_it


def gradient(step: int, value: float) -> Fault:
    """The loss is finite, and the gradient of one weight is not."""

    def break_it(made: Learner, _: pytest.MonkeyPatch) -> None:
        def attach(logits: Tensor) -> Tensor:
            logits.register_hook(  # type: ignore[no-untyped-call]
                lambda slope: slope.index_fill(1, torch.tensor([0]), value)
            )
            return logits

        _at_training_pass(made.model, step, attach)

    return break_it


def after_update(step: int, change: Callable[[Learner, Optimizer], None]) -> Fault:
    """Something is broken by an update whose loss and gradients are finite."""

    def break_it(made: Learner, patch: pytest.MonkeyPatch) -> None:
        real, done = SGD.step, 0

        def broken(optimizer: SGD, closure: None = None) -> None:
            nonlocal done
            real(optimizer, closure)
            if done == step:
                with torch.no_grad():
                    change(made, optimizer)
            done += 1

        patch.setattr(SGD, "step", broken)

    return break_it


def weights(made: Learner, _: Optimizer) -> None:
    made.groups[0].parameters[0][0, 0] = INF


def momentum(_: Learner, optimizer: Optimizer) -> None:
    next(iter(optimizer.state.values()))["momentum_buffer"].fill_(NAN)


def statistics(made: Learner, _: Optimizer) -> None:
    next(m for m in made.model.modules() if isinstance(m, nn.BatchNorm1d)).running_var[2] = INF  # type: ignore[index]


def spare(made: Learner, _: Optimizer) -> None:
    made.model.register_buffer("spare", torch.tensor([1.0, NAN]))


def weights_before(made: Learner, _: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        made.groups[0].parameters[0][0, 0] = NAN


def class_weights(made: Learner, _: pytest.MonkeyPatch) -> None:
    object.__setattr__(made, "class_weights", torch.tensor([1.0, NAN, 1.0]))


TRAINING: dict[str, tuple[Fault, str]] = {
    "NaN in an image": (inputs("train", NAN), r"the values of image 3 .* NaN or infinite, at step \d+, with lr"),
    "infinity in an image": (inputs("train", INF), r"the values of image 3 .* at step \d+"),
    "NaN in an image of valid": (inputs("valid", NAN), r"before the first step, .* answer for image 3 .*\(of valid\)"),
    "NaN in a plain image": (inputs("train_plain", NAN), r"before the first step, .* for image 3 .*\(of train\)"),
    "loss NaN at the first step": (loss(0, NAN), r"loss became nan at step 0, .*image \d+.*so no rate is to blame"),
    "loss NaN in between": (loss(7, NAN), r"loss became nan at step 7, .*image \d+.*set full_train\.lr below 0\.05"),
    "loss infinite in between": (loss(7, INF), r"loss became (nan|inf) at step 7"),
    "loss NaN at the last step": (loss(LAST, NAN), rf"loss became nan at step {LAST}"),
    "gradient NaN at the first step": (gradient(0, NAN), r"gradients became NaN or infinite at step 0.*no rate"),
    "gradient NaN in between": (gradient(7, NAN), r"gradients became NaN or infinite at step 7, .*image \d+"),
    "gradient infinite in between": (gradient(9, INF), r"gradients became NaN or infinite at step 9"),
    "gradient NaN at the last step": (gradient(LAST, NAN), rf"gradients became NaN or infinite at step {LAST}"),
    "weights at the first step": (after_update(0, weights), r"after step 0, 1 of the 96|loss became nan at step 1"),
    "weights at an epoch's end": (after_update(4, weights), r"after step 4, 1 of the 96 numbers of 0\.weight"),
    "weights at the last step": (after_update(LAST, weights), rf"after step {LAST}, 1 of the 96 numbers of 0\.weight"),
    "momentum in between": (
        after_update(6, momentum),
        r"after step 6, .* of momentum_buffer|loss became nan at step 8",
    ),
    "momentum at the last step": (after_update(LAST, momentum), r"numbers of momentum_buffer of parameter 0"),
    "batch norm in between": (after_update(6, statistics), r"after step [69], 1 of the 16 numbers of 1\.running_var"),
    "batch norm at the last step": (after_update(LAST, statistics), r"1 of the 16 numbers of 1\.running_var"),
    "what no loss depends on": (after_update(LAST, spare), rf"after step {LAST}, 1 of the 2 numbers of spare"),
    "weights before the first step": (weights_before, r"before the first step, 1 of the 96 numbers of 0\.weight"),
    "class weights": (class_weights, r"the loss became nan at step 0, .*no rate is to blame"),
}


def train(
    folder: Path, optimizer: OptimizerName = "sgd", fault: Fault | None = None, *, checkpoint_s: float = 0
) -> dict[str, str]:
    """Train in `folder`, going on from what is kept there; returns the digests of all results."""
    folder.mkdir(exist_ok=True)
    made, journal = replace(learner(build_model()), optimizer=optimizer), Journal(folder / "journal.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        if fault is not None:
            fault(made, patch)
        try:
            fit(made, PLAN, Workspace("full_train", 5, folder, folder, journal, checkpoint_s))
            journal.end()
        finally:
            journal.close()
    names = ["journal.jsonl", *(f"{kind}-{k}.pt" for kind in ("cycle", "logits") for k in range(3))]
    model = hashlib.sha256(b"".join(t.numpy().tobytes() for t in made.model.state_dict().values())).hexdigest()
    return {"model": model} | {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def kept_tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for part in parts for tensor in kept_tensors(part)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return train(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("checkpoint_s", [0, 1e9], ids=["kept at each step", "kept at cycle ends"])
@pytest.mark.parametrize("name", TRAINING)
def test_training_stops_with_one_error_keeps_what_is_whole_and_goes_on(
    name: str, checkpoint_s: float, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    fault, message = TRAINING[name]
    with pytest.raises(NumbersError, match=message) as caught:
        train(tmp_path / "scratch", fault=fault, checkpoint_s=checkpoint_s)
    assert "\n" not in str(caught.value)
    for file in (tmp_path / "scratch").glob("*.pt"):
        content = read_sealed(file)
        assert content is not None
        assert all_finite(kept_tensors(torch.load(io.BytesIO(content), weights_only=True))), file
    assert "NaN" not in (tmp_path / "scratch" / "journal.jsonl").read_text()
    assert train(tmp_path / "scratch") == undisturbed


def test_adamw_is_guarded_too(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", optimizer="adamw")
    with pytest.raises(DivergedError, match="gradients became NaN or infinite at step 7"):
        train(tmp_path / "scratch", optimizer="adamw", fault=gradient(7, NAN))
    assert train(tmp_path / "scratch", optimizer="adamw") == whole


def test_the_solver_names_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    values, targets = samples()

    def solve(activations: Tensor) -> None:
        head = build_head(values, 3, dropout=0.0, seed=0)
        list(follow_path(head, activations, targets, class_weights=None, decays=(1.0, 0.1)))

    broken = values.clone()
    broken[7, 1] = NAN
    with pytest.raises(NumbersError, match="for row 7 is NaN or infinite: run `dvc repro -f precompute`"):
        solve(broken)
    monkeypatch.setattr(head_solver, "_minimise", lambda _, start, *__: (start * NAN, 1))
    with pytest.raises(NumbersError, match=r"no head for weight decay 1: set head_train\.solver=sgd"):
        solve(values)


def test_cross_validation_names_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets, groups = clusters(30)

    def validate(values: Tensor) -> None:
        cross_validate(values, targets, groups, num_folds=3, num_classes=3, seed=0, bar=Bar())

    with pytest.raises(NumbersError, match=r"logistic regression: \d of the \d+ numbers of the features"):
        validate(features.masked_fill(torch.arange(30)[:, None] == 4, INF))
    monkeypatch.setattr(logistic, "_minimise", lambda _, __, weight, *___: weight.data.fill_(NAN))
    with pytest.raises(NumbersError, match="found no weights for the penalty"):
        validate(features)


def test_a_sweep_tells_a_broken_image_from_a_rate_that_is_too_high() -> None:
    plan = plan_sweeps(SETTINGS, batch_size=8, budget=None)
    made = learner(build_model())
    points = sweep(made, replace(plan, start_lr=1.0, end_lr=1e30), momentum=0.9, seed=("a", 1), bar=Bar())
    assert all(map(math.isfinite, (*points.losses, *points.references)))
    made = learner(build_model())
    inputs("train", NAN)(made, pytest.MonkeyPatch())
    with pytest.raises(NumbersError, match=r"loss of the unchanged model is nan at step \d+, on the batch of image"):
        sweep(made, plan, momentum=0.9, seed=("a", 1), bar=Bar())


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_files_with_broken_numbers_are_neither_written_nor_read(value: float, tmp_path: Path) -> None:
    broken = {"fine": torch.ones(3), "weight": torch.tensor([1.0, value, value])}
    with pytest.raises(NumbersError, match=r"a\.safetensors is not written: 2 of the 3 numbers of weight are NaN or"):
        save_tensors(broken, tmp_path / "a.safetensors")
    assert [*tmp_path.iterdir()] == []
    save_file(broken, tmp_path / "b.safetensors")
    with pytest.raises(NumbersError, match=r"b\.safetensors: 2 of the 3 numbers of weight"):
        read_tensors(tmp_path / "b.safetensors")
    with pytest.raises(NumbersError, match=r"b\.safetensors: 2 of the 3 numbers of weight"):
        load_pretrained("resnet18", str(tmp_path / "b.safetensors"), seed=0)


def test_what_half_precision_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(NumbersError, match="1 of the 2 numbers of weight"):
        save_tensors({"weight": torch.tensor([1.0, 70_000.0])}, tmp_path / "a.safetensors", half=True)


def test_large_numbers_are_no_broken_ones() -> None:
    assert all_finite([torch.full((9,), 3e38), torch.full((3,), -3e38), torch.arange(3)])
    assert not all_finite([torch.tensor([INF, -INF])])


@pytest.mark.parametrize("value", [NAN, INF])
def test_figures_with_broken_numbers_are_named(value: float, tmp_path: Path) -> None:
    with pytest.raises(NumbersError, match=rf"metrics\.json: valid\.plain\[1\]\.log_loss is {value}"):
        write_json(tmp_path / "metrics.json", {"lr": 1.0, "valid": {"plain": [1, {"log_loss": value}]}})
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(NumbersError, match=f"at step 3: valid_loss is {value}"):
        journal.points(3, train_loss=0.5, valid_loss=value)
    journal.close()


def test_an_answer_that_is_no_number_names_the_file(files: list[ImageFile]) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) * NAN

    computation = Computation(Broken(), torch.device("cpu"), "fp32", 4)
    with pytest.raises(NumbersError, match=rf"the model's answer for {files[0].path} is NaN or infinite"):
        predict_with_tta(computation, files, tta("flip"), policy("none"), normalisation=IMAGENET, seed=0)


@pytest.mark.xdist_group("recipe")
def test_precompute_names_the_image_and_goes_on_to_the_same_bytes(
    recipe: Run, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fingerprints(read_settings(recipe.params, source="x"), tmp_path / "config", ())
    inputs = {"ingest": recipe.folder("ingest"), "config": tmp_path / "config"}
    folders, seen = StageFolders(inputs, tmp_path / "precompute", tmp_path / ".unfreeze"), 0

    def broken(computation: Computation, images: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        features = forward(computation, images)
        return features.index_fill(0, torch.tensor([1]), NAN) if seen == 3 else features

    with monkeypatch.context() as patch:
        patch.setattr("stages.precompute.forward", broken)
        with pytest.raises(NumbersError, match=r"backbone's answer for \w+/\d+\.\w+ is NaN or infinite: check model"):
            execute(STAGE, recipe.params, runtime, folders)
    assert not (tmp_path / "precompute").exists()
    execute(STAGE, recipe.params, runtime, folders)
    for name in ("activations-train.safetensors", "activations-valid.safetensors", "head.safetensors"):
        assert (tmp_path / "precompute" / name).read_bytes() == (recipe.folder("precompute") / name).read_bytes()
