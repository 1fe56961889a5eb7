"""Balance: weights by the formula, and epochs in which every class is drawn equally often."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from pipeline.learning.activation_learners import head_group
from pipeline.learning.balance import balance_classes, class_weights
from pipeline.learning.loop import Learner, batch_loss
from pipeline.learning.sources import Batch, Oversampled, TensorBatches
from pipeline.model.head import Head

TARGETS = torch.tensor([0] * 7 + [1] * 3 + [2])


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(0)
    source = TensorBatches(torch.randn(11, 4), TARGETS)
    head = Head(4, 3, dropout=0.0)
    cpu = torch.device("cpu")
    return Learner(head, cpu, "fp32", 4, [head_group(head)], source, source, source, lambda: None)


def test_weights_equal_scikit_learns() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS.numpy())
    assert class_weights(TARGETS).tolist() == pytest.approx(expected.tolist())
    assert class_weights(TARGETS)[TARGETS].mean().item() == pytest.approx(1)


def test_the_weighted_loss_is_the_weighted_mean(learner: Learner) -> None:
    [batch] = learner.train.batches([list(range(11))], draw=0)
    logits = learner.model(batch[0])
    single = torch.nn.functional.cross_entropy(logits, TARGETS, reduction="none")
    weighted = balance_classes(learner, "weights")
    got = batch_loss(weighted, learner.model, Batch.of([batch]), seed=(0,))
    assert got.item() == pytest.approx((class_weights(TARGETS)[TARGETS] * single).mean().item(), rel=1e-6)
    plain = batch_loss(learner, learner.model, Batch.of([batch]), seed=(0,))
    assert plain.item() == pytest.approx(single.mean().item(), rel=1e-6)


def test_classes_are_drawn_equally_often_and_draw_counts_within_a_class_differ_by_one_at_most(learner: Learner) -> None:
    source = Oversampled(learner.train)
    assert source.num_samples == 21
    inputs = {tuple(x.tolist()): i for i, x in enumerate(next(learner.train.batches([list(range(11))], draw=0))[0])}
    drawn: Counter[int] = Counter()
    for draw in range(3):
        order = [list(range(i, i + 7)) for i in (14, 0, 7)]
        targets = []
        now: Counter[int] = Counter()
        for batch, (x, y) in zip(order, source.batches(order, draw=draw), strict=True):
            assert torch.equal(source.targets[batch], y)
            targets += y.tolist()
            now.update(inputs[tuple(v.tolist())] for v in x)
        assert Counter(targets) == {0: 7, 1: 7, 2: 7}
        assert all(now[i] == 1 for i in range(7))
        assert sorted(now[i] for i in range(7, 10)) == [2, 2, 3]
        drawn += now
    assert [drawn[i] for i in range(7, 10)] == [7, 7, 7]  # the extra draw moves on from epoch to epoch


def test_none_changes_nothing_and_evaluation_is_never_balanced(learner: Learner) -> None:
    assert balance_classes(learner, "none") is learner
    sampled = balance_classes(learner, "sampler")
    assert sampled.valid is learner.valid
    assert sampled.train_plain is learner.train_plain
