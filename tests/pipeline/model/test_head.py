"""The head: standardised features, and a draw that leaves the global RNG alone."""

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.preprocessing import StandardScaler

from pipeline.model.head import Standardise, build_head, start_from_classifier


def test_features_are_standardised_by_those_of_the_training_images() -> None:
    activations = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 3, 4, 5, 0.0])
    head = build_head(activations, 3, dropout=0.5, seed=0)
    standardise = head[0]
    assert isinstance(standardise, Standardise)
    reference = StandardScaler().fit(activations.numpy())
    spread = torch.from_numpy(reference.var_).sqrt()
    expected = (activations - torch.from_numpy(reference.mean_)) / (spread + 0.1 * spread.mean())
    torch.testing.assert_close(standardise(activations), expected.float(), atol=1e-5, rtol=1e-5)
    assert standardise(activations)[:, 5].abs().max() < 1e-5  # a feature that never varies stays zero


def test_a_single_training_image_is_enough() -> None:
    assert build_head(torch.ones(1, 4), 2, dropout=0.0, seed=0)(torch.ones(1, 4)).isfinite().all()


def test_the_statistics_of_the_head_travel_with_its_weights() -> None:
    activations = torch.randn(20, 4, generator=torch.Generator().manual_seed(1)) + 3
    head, other = (build_head(a, 2, dropout=0.0, seed=0).eval() for a in (activations, activations * 2))
    other.load_state_dict(head.state_dict())
    assert torch.equal(head(activations), other(activations))


def test_a_head_depends_on_its_seed_alone() -> None:
    activations = torch.randn(20, 4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (build_head(activations, 2, dropout=0.0, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first["2.weight"], second["2.weight"])
    assert not torch.equal(first["2.weight"], other["2.weight"])


@pytest.fixture(scope="module")
def pretrained() -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    """A layer that tells 20 classes apart, features [300, 8] that it was made for, and their classes [300]."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(20, 8, generator=generator)
    classes = torch.arange(300) % 20
    features = centres[classes] + torch.randn(300, 8, generator=generator)
    layer = torch.nn.Linear(8, 20)
    with torch.no_grad():  # the best linear classifier of such clouds, by Bayes' rule
        layer.weight.copy_(centres)
        layer.bias.copy_(-centres.square().sum(1) / 2)
    return layer, features, classes


def test_the_logits_are_divergences_between_the_pretrained_answers(
    pretrained: tuple[torch.nn.Linear, torch.Tensor, torch.Tensor],
) -> None:
    layer, features, classes = pretrained
    targets = torch.where(classes < 2, classes, 2)  # two of theirs, and a mixture of all the others
    head = build_head(features, 3, dropout=0.5, seed=0).eval()
    start_from_classifier(head, layer, features, targets)
    with torch.no_grad():
        answers, logits = softmax(layer(features).double().numpy(), axis=1), head(features).double().softmax(1).numpy()
    for i in range(0, 300, 7):
        scores = []
        for c in range(3):
            members = [answers[j] for j in range(300) if targets[j] == c]
            typical = sum(members) / len(members)
            scores.append(-entropy(typical, answers[i]))  # of two distributions: the divergence
        assert logits[i] == pytest.approx(softmax(scores), rel=1e-3, abs=1e-5)


def test_an_image_seen_like_the_average_image_of_a_class_belongs_to_it() -> None:
    """Gibbs' inequality: no distribution is nearer to a distribution than itself, however broad it is."""
    generator = torch.Generator().manual_seed(0)
    layer, targets = torch.nn.Linear(20, 20), torch.arange(60) % 3
    with torch.no_grad():
        layer.weight.copy_(torch.eye(20))
        layer.bias.zero_()
    logits = torch.randn(60, 20, generator=generator)
    logits[targets == 0, 5] += 8  # of one kind; the others of many
    head = build_head(logits, 3, dropout=0.0, seed=0)
    start_from_classifier(head, layer, logits, targets)
    typical = torch.stack([logits[targets == c].softmax(1).mean(0) for c in range(3)])
    with torch.no_grad():
        assert head(typical.log()).argmax(1).tolist() == [0, 1, 2]
        assert head(torch.zeros(1, 20)).argmax(1) != 0  # an image that looks like nothing is not of the narrow class


def test_classes_that_were_pretrained_are_known_from_the_start(
    pretrained: tuple[torch.nn.Linear, torch.Tensor, torch.Tensor],
) -> None:
    layer, features, classes = pretrained
    ours = torch.tensor([11, 4, 17])  # in another order than theirs
    chosen = torch.isin(classes, ours)
    targets = (classes[chosen, None] == ours).int().argmax(1)
    few = torch.cat([torch.nonzero(targets == c)[:2, 0] for c in range(3)])
    head = build_head(features[chosen][few], 3, dropout=0.0, seed=0)
    start_from_classifier(head, layer, features[chosen][few], targets[few])
    with torch.no_grad():
        theirs = layer(features[chosen])[:, ours].argmax(1)
        assert (head(features[chosen]).argmax(1) == theirs).double().mean() > 0.95
        assert (theirs == targets).double().mean() > 0.95
