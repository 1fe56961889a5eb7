"""Training that is asked to stop at any boundary keeps the step, and goes on to the same bytes."""

import hashlib
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline import stopping
from pipeline.journal import Journal
from pipeline.learning.cross_validation import cross_validate
from pipeline.learning.head_solver import follow_path
from pipeline.learning.loop import fit
from pipeline.learning.lr_find import find_lr
from pipeline.model.compute import Computation, predict
from pipeline.model.head import build_head
from pipeline.stopping import Stopped, ask, forget
from pipeline.workspace import Bar, Workspace
from tests.pipeline.learning.test_cross_validation import clusters
from tests.pipeline.learning.test_head_solver import samples
from tests.pipeline.learning.test_loop import PLAN, build_model, learner
from tests.pipeline.learning.test_lr_find import SAFE_LR, SETTINGS


class Counter:
    """Counts the boundaries that a run comes to, and asks for a stop at one of them."""

    def __init__(self, at: int | None) -> None:
        self.seen, self.at = 0, at

    def requested(self) -> int | None:
        if self.seen == self.at:
            ask(signal.SIGTERM)
        self.seen += 1
        return stopping._state.number


@pytest.fixture
def boundaries(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], Counter]]:
    def ask_at(number: int | None) -> Counter:
        forget()
        counter = Counter(number)
        monkeypatch.setattr(stopping, "requested", counter.requested)
        return counter

    yield ask_at
    forget()


def train(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "journal.jsonl")
    made = learner(build_model())
    try:
        fit(made, PLAN, Workspace("full_train", 5, folder, folder, journal, 1e9))
        journal.end()
        torch.save({name: tensor.clone() for name, tensor in made.model.state_dict().items()}, folder / "model.pt")
    finally:
        journal.close()


def digests(folder: Path) -> dict[str, str]:
    """Of all results: what is kept beside them differs in when it was written last."""
    names = ["journal.jsonl", "model.pt", *(f"{kind}-{k}.pt" for kind in ("cycle", "logits") for k in range(3))]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_training_that_stops_at_any_boundary_ends_in_the_same_bytes(
    tmp_path: Path, boundaries: Callable[[int | None], Counter]
) -> None:
    counter = boundaries(None)
    train(tmp_path / "undisturbed")
    wanted, number = digests(tmp_path / "undisturbed"), counter.seen
    assert number > 15 + 3 * 6  # each step, and each batch that is measured
    said = []
    for at in range(number):
        boundaries(at)
        with pytest.raises(Stopped) as caught:
            train(tmp_path / "stopped")
        said.append(caught.value.kept)
        boundaries(None)
        train(tmp_path / "stopped")
        assert digests(tmp_path / "stopped") == wanted, at
        shutil.rmtree(tmp_path / "stopped")
    assert said[0] is None  # before the first step
    assert {s for s in said if s} == {f"step {k} of 15" for k in range(1, 16)}  # the running step is kept


def test_a_run_that_is_stopped_again_and_again_comes_to_its_end(
    tmp_path: Path, boundaries: Callable[[int | None], Counter]
) -> None:
    boundaries(None)
    train(tmp_path / "undisturbed")
    for _ in range(100):
        boundaries(12)
        try:
            train(tmp_path / "stopped")
            break
        except Stopped:
            continue
    assert digests(tmp_path / "stopped") == digests(tmp_path / "undisturbed")


def test_the_finder_stops_within_a_step_and_goes_on_after_its_last_repeat(
    tmp_path: Path, boundaries: Callable[[int | None], Counter]
) -> None:
    def find(folder: Path) -> object:
        folder.mkdir(exist_ok=True)
        journal = Journal(folder / "journal.jsonl")
        workspace = Workspace("lr_find_full", 0, folder, folder, journal, 1e9)
        try:
            return find_lr(
                learner(build_model()), SETTINGS, workspace,
                batch_size=8, momentum=0.9, budget=None, safe_lr=SAFE_LR,
            )[0]  # fmt: skip
        finally:
            journal.close()

    counter = boundaries(None)
    wanted = find(tmp_path / "undisturbed")
    assert counter.seen > 30
    for at in (0, counter.seen - 2):  # the second time, two of three repeats are kept
        boundaries(at)
        with pytest.raises(Stopped):
            find(tmp_path / "stopped")
    again = boundaries(None)
    assert find(tmp_path / "stopped") == wanted
    assert again.seen < counter.seen / 2


def test_solvers_and_prediction_stop_within_a_pass(boundaries: Callable[[int | None], Counter]) -> None:
    inputs, targets = samples()
    features, classes, groups = clusters(30)

    def solve() -> None:
        head = build_head(inputs, 3, dropout=0.0, seed=0)
        list(follow_path(head, inputs, targets, class_weights=None, decays=(1.0, 0.1)))

    def validate() -> None:
        cross_validate(features, classes, groups, num_folds=3, num_classes=3, seed=0, bar=Bar())

    def measure() -> None:
        batches: list[tuple[Tensor, Tensor]] = [(inputs, targets)] * 9
        predict(Computation(build_head(inputs, 3, dropout=0.0, seed=0), torch.device("cpu"), "fp32", 90), batches)

    for run in (solve, validate, measure):
        counter = boundaries(None)
        run()
        assert counter.seen >= 9, run
        boundaries(5)
        with pytest.raises(Stopped):
            run()


def test_what_diverged_is_no_reason_to_forget_a_stop(
    tmp_path: Path, boundaries: Callable[[int | None], Counter]
) -> None:
    boundaries(12)
    (tmp_path / "a").mkdir()
    journal = Journal(tmp_path / "a" / "journal.jsonl")
    with pytest.raises(Stopped):
        fit(
            learner(build_model()),
            replace(PLAN, is_lr_found=True),
            Workspace("x", 0, tmp_path / "a", tmp_path / "a", journal, 0),
        )
    journal.close()
