"""The training loop against a hand-written one, after a kill, and at the extremes of batch size."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.journal import Journal, read_points
from pipeline.learning.checkpoint import load_snapshot
from pipeline.learning.loop import Learner, ParameterGroup, Plan, TrainingRun, build_optimizer, fit, take_step
from pipeline.learning.snapshots import keep_snapshots
from pipeline.learning.soundness import DivergedError
from pipeline.learning.sources import Batch, TensorBatches, in_order
from pipeline.model.batches import even_batches
from pipeline.model.compute import evaluate
from pipeline.numbers import NumbersError
from pipeline.seeds import permutation, seed_torch
from pipeline.settings import OptimizerName
from pipeline.workspace import Workspace

PLAN = Plan(
    num_cycles=2,
    cycle_len=1,
    cycle_mult=2,
    lr=0.05,
    batch_size=8,
    momentum=0.9,
    weight_decay=1e-4,
    until_overfit=False,
    schedule="sgdr",
)


def data(count: int, seed: int) -> TensorBatches:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, generator=generator)
    return TensorBatches(inputs, (inputs[:, 0] + inputs[:, 1] > 0).long() + (inputs[:, 2] > 0.7).long())


def build_model(*, dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def learner(model: nn.Module, *, micro_batch_size: int = 8, count: int = 37) -> Learner:
    layers = list(model.children())
    early = [p for layer in layers[:2] for p in layer.parameters()]
    groups = [ParameterGroup("early", early, 1 / 3), ParameterGroup("head", list(layers[-1].parameters()), 1.0)]

    def set_mode() -> None:
        model.train()

    return Learner(
        model=model,
        groups=groups,
        train=data(count, 1),
        train_plain=data(count, 1),
        valid=data(20, 2),
        set_mode=set_mode,
        device=torch.device("cpu"),
        precision="fp32",
        micro_batch_size=micro_batch_size,
    )


def run(made: Learner, plan: Plan, scratch: Path, *, checkpoint_s: float = 1e9) -> TrainingRun:
    scratch.mkdir(parents=True, exist_ok=True)
    journal = Journal(scratch / "journal.jsonl")
    try:
        return fit(made, plan, Workspace("full_train", 5, scratch, scratch, journal, checkpoint_s))
    finally:
        journal.close()


def reference_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """The model's parameters one by one, by name: the first layer at a third of the rate, decay on matrices alone."""
    return [
        {
            "params": [parameter],
            "lr": 0.05 if name.startswith("4.") else 0.05 / 3,
            "weight_decay": weight_decay if name in ("0.weight", "4.weight") else 0.0,
        }
        for name, parameter in model.named_parameters()
    ]


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_equals_a_plain_loop(tmp_path: Path) -> None:
    made = learner(build_model())
    run(made, replace(PLAN, num_cycles=1, cycle_len=2), tmp_path)

    model, samples = build_model(), data(37, 1)
    optimizer = torch.optim.SGD(reference_groups(model, weight_decay=1e-4), momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    step = 0
    for epoch in range(2):
        for batch in even_batches(permutation(37, 5, "full_train", epoch), 8):
            model.train()
            optimizer.zero_grad()
            seed_torch(5, "full_train", "step", step, 0)
            loss = F.cross_entropy(model(samples.inputs[batch]), samples.targets[batch], reduction="sum") / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            step += 1
    for name, value in model.state_dict().items():
        # torch's cosine for one cycle is computed recursively, so rates differ in the last bits
        torch.testing.assert_close(made.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_one_step_equals_plain_pytorch_bit_for_bit(tmp_path: Path) -> None:
    plan = replace(PLAN, num_cycles=1, batch_size=37)
    made = learner(build_model(), micro_batch_size=64)
    run(made, plan, tmp_path)

    model, samples = build_model(), data(37, 1)
    optimizer = torch.optim.SGD(reference_groups(model, weight_decay=1e-4), momentum=0.9)
    order = permutation(37, 5, "full_train", 0)
    model.train()
    seed_torch(5, "full_train", "step", 0, 0)
    loss = F.cross_entropy(model(samples.inputs[order]), samples.targets[order], reduction="sum") / 37
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert equal(made.model, model)


def test_adamw_equals_a_plain_loop_bit_for_bit(tmp_path: Path) -> None:
    plan = replace(PLAN, num_cycles=1, cycle_len=3, batch_size=37, momentum=0.8, weight_decay=0.1, schedule="constant")
    made = replace(learner(build_model(), micro_batch_size=64), optimizer="adamw")
    run(made, plan, tmp_path)

    model, samples = build_model(), data(37, 1)
    optimizer = torch.optim.AdamW(reference_groups(model, weight_decay=0.1), betas=(0.8, 0.999))
    for step in range(3):
        order = permutation(37, 5, "full_train", step)
        model.train()
        optimizer.zero_grad()
        seed_torch(5, "full_train", "step", step, 0)
        loss = F.cross_entropy(model(samples.inputs[order]), samples.targets[order], reduction="sum") / 37
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert equal(made.model, model)


class KilledError(Exception):
    """Stands for a kill of the process."""


ONE_CYCLE = replace(PLAN, num_cycles=1, cycle_len=3, cycle_mult=1, schedule="one_cycle")


@pytest.mark.parametrize(
    ("kill_at", "plan", "optimizer"),
    [
        *((k, PLAN, "sgd") for k in (1, 4, 5, 7, 9, 14)),
        (7, ONE_CYCLE, "sgd"),
        *((k, PLAN, "adamw") for k in (1, 7, 14)),
        (7, ONE_CYCLE, "adamw"),
    ],
)
def test_a_killed_run_ends_in_the_same_bytes(
    tmp_path: Path, kill_at: int, plan: Plan, optimizer: OptimizerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> Learner:
        return replace(learner(build_model()), optimizer=optimizer)

    whole = fresh()
    run(whole, plan, tmp_path / "whole", checkpoint_s=0)

    steps = 0
    points = Journal.points

    def points_until_killed(journal: Journal, step: int, **values: float) -> None:
        nonlocal steps
        points(journal, step, **values)
        steps += "train_loss" in values
        if steps == kill_at:
            raise KilledError

    monkeypatch.setattr(Journal, "points", points_until_killed)
    with pytest.raises(KilledError):
        run(fresh(), plan, tmp_path / "killed", checkpoint_s=0)
    monkeypatch.undo()
    resumed = fresh()
    run(resumed, plan, tmp_path / "killed", checkpoint_s=0)
    assert equal(whole.model, resumed.model)
    assert (tmp_path / "whole/journal.jsonl").read_bytes() == (tmp_path / "killed/journal.jsonl").read_bytes()


def test_a_full_batch_is_accumulated_to_the_true_one(tmp_path: Path) -> None:
    def frozen() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.Identity(), nn.ReLU(), nn.Identity(), nn.Linear(16, 3))

    torch.manual_seed(0)
    once = frozen()
    torch.manual_seed(0)
    in_parts = frozen()
    plan = replace(PLAN, batch_size=37)
    a, b = learner(once, micro_batch_size=37), learner(in_parts, micro_batch_size=4)
    run(a, plan, tmp_path / "a")
    run(b, plan, tmp_path / "b")
    for x, y in zip(once.parameters(), in_parts.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-7)


def test_batches_of_one_train_and_no_batch_of_one_is_left_over(tmp_path: Path) -> None:
    stochastic = learner(nn.Sequential(nn.Linear(6, 4), nn.Identity(), nn.Linear(4, 3)))
    finished = run(stochastic, replace(PLAN, num_cycles=1, batch_size=1), tmp_path / "one")
    assert finished.cycles.steps_per_epoch == 37
    rest = learner(build_model(), count=33)  # 4 batches of 8 would leave one image, on which batch norm fails
    assert run(rest, PLAN, tmp_path / "rest").cycles.steps_per_epoch == 5


def test_the_best_cycle_is_kept_and_training_stops_after_a_worse_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipeline.learning.loop as loop

    made = learner(build_model())
    valid_losses = iter([0.45, 0.5, 0.4, 0.45, 0.6, 0.1, 0.1, 0.1])
    seen: list[dict[str, Tensor]] = []

    def fake(_: Tensor, targets: Tensor) -> tuple[float, float]:
        if len(targets) != made.valid.num_samples:
            return 0.1, 0.9  # of the training images
        seen.append({n: t.clone() for n, t in made.model.state_dict().items()})
        return next(valid_losses), 0.5

    monkeypatch.setattr(loop, "score", fake)
    finished = run(made, replace(PLAN, num_cycles=4, cycle_mult=1, until_overfit=True), tmp_path)
    assert [e.valid_loss for e in finished.ends] == [0.45, 0.5, 0.4, 0.45]
    kept = keep_snapshots(made, finished.ends, tmp_path, "best")
    assert kept.cycles == [2]
    assert all(torch.equal(made.model.state_dict()[n], t) for n, t in seen[2].items())


def test_a_known_start_is_taken_and_what_follows_is_measured(tmp_path: Path) -> None:
    plain, told = learner(build_model()), learner(build_model())
    told = replace(told, start={"valid": torch.zeros(told.valid.num_samples, 3), "train": torch.zeros(37, 3)})
    measured, known = run(plain, PLAN, tmp_path / "a").ends, run(told, PLAN, tmp_path / "b").ends
    assert (known[0].valid_loss, known[0].train_loss) == pytest.approx((math.log(3), math.log(3)))
    assert known[0].valid_loss != measured[0].valid_loss
    assert known[1:] == measured[1:]


def test_if_no_cycle_is_better_the_initial_model_is_kept(tmp_path: Path) -> None:
    made = learner(build_model())
    assert isinstance(made.train, TensorBatches)
    made.train.targets[:] = 2  # what is learned here is wrong for valid
    before = {n: t.clone() for n, t in made.model.state_dict().items()}
    finished = run(made, replace(PLAN, lr=1.0), tmp_path)
    assert [e.cycle for e in finished.ends] == [0, 1, 2]
    assert keep_snapshots(made, finished.ends, tmp_path, "best").cycles == [0]
    assert all(torch.equal(made.model.state_dict()[n], t) for n, t in before.items())


def test_groups_are_unfrozen_from_cycle_to_cycle(tmp_path: Path) -> None:
    model = build_model()
    early = [p for layer in list(model.children())[:2] for p in layer.parameters()]

    def begin_cycle(cycle: int) -> None:
        for parameter in early:
            parameter.requires_grad_(cycle >= 2)

    run(replace(learner(model), begin_cycle=begin_cycle), PLAN, tmp_path)
    start, first, second = (load_snapshot(tmp_path, cycle) for cycle in (0, 1, 2))
    assert torch.equal(start["0.weight"], first["0.weight"])
    assert not torch.equal(start["4.weight"], first["4.weight"])
    assert not torch.equal(first["0.weight"], second["0.weight"])


def test_a_loss_that_explodes_stops_with_advice(tmp_path: Path) -> None:
    explosive = replace(PLAN, lr=1e30)
    with pytest.raises(
        DivergedError, match=r"on the batch of image \d+ .* and \d more: set full_train\.lr below 1e\+30"
    ):
        run(learner(build_model()), explosive, tmp_path / "found")
    with pytest.raises(DivergedError, match=r"set the last rate of unfreeze\.lrs below 1e\+30"):
        run(learner(build_model()), replace(explosive, lr_setting="the last rate of unfreeze.lrs"), tmp_path / "given")


def test_evaluation_is_the_mean_over_samples_for_any_micro_batch_size() -> None:
    made = learner(build_model(), micro_batch_size=3)
    loss, accuracy = evaluate(made, in_order(made.valid, made.micro_batch_size))
    assert isinstance(made.valid, TensorBatches)
    made.model.eval()
    logits = made.model(made.valid.inputs)
    assert loss == pytest.approx(F.cross_entropy(logits, made.valid.targets).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == made.valid.targets).float().mean().item())


def test_the_journal_holds_every_step_and_epoch(tmp_path: Path) -> None:
    run(learner(build_model()), PLAN, tmp_path)
    points = read_points(tmp_path / "journal.jsonl")
    assert list(points) == list(range(-1, 15))
    assert [s for s, v in points.items() if "valid_loss" in v] == [-1, 4, 9, 14]
    assert [s for s, v in points.items() if "train_plain_loss" in v] == [-1, 4, 14]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_that_wait_unread_train_alike_and_never_wait_for_the_device(
    optimizer: OptimizerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = replace(PLAN, lr=0.005)
    ends = [
        run(replace(learner(build_model()), unread=unread, optimizer=optimizer), slow, tmp_path / str(unread)).ends
        for unread in (1, 4)
    ]
    for known, waited in zip(*ends, strict=True):
        assert waited.valid_loss == pytest.approx(known.valid_loss, rel=1e-3)
    assert read_points(tmp_path / "4" / "journal.jsonl").keys() == read_points(tmp_path / "1" / "journal.jsonl").keys()

    made = replace(learner(build_model()), unread=4)
    built = build_optimizer(made.groups, 0.1, momentum=0.9, weight_decay=0.0, name=optimizer, fused=True)
    batch = Batch.of([*made.train.batches([[*range(8)], [*range(8, 16)]], draw=0)])
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "numpy", "__bool__", "__float__"):
            patch.setattr(Tensor, name, _wait)
        step = take_step(made, built, batch, seed=(0,))
    assert step.read() > 0


def _wait(_: Tensor) -> None:
    raise AssertionError("this waits for the device")


def test_no_update_follows_one_that_is_not_finite_before_it_is_read(tmp_path: Path) -> None:
    made = replace(learner(build_model()), unread=4)
    built = build_optimizer(made.groups, 0.1, momentum=0.9, weight_decay=0.0, fused=True)
    sound, broken = (Batch.of([next(made.train.batches([[*range(8)]], draw=0))]) for _ in range(2))
    broken.parts[0][0][0] = torch.nan
    weights = [p.clone() for group in made.groups for p in group.parameters]
    for batch in (broken, sound):
        step = take_step(made, built, batch, seed=(0,))
    assert step.read() > 0
    assert all(torch.equal(p, w) for p, w in zip((p for g in made.groups for p in g.parameters), weights, strict=True))

    made.train.inputs[5] = torch.nan  # type: ignore[attr-defined]
    with pytest.raises(NumbersError, match=r"the values of image 5 of the activations are NaN or infinite, at step \d"):
        run(replace(learner(build_model()), unread=4, train=made.train), PLAN, tmp_path)
