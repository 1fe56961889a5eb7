"""The head: standardised features, and a draw that leaves the global RNG alone."""

import torch
from sklearn.preprocessing import StandardScaler

from pipeline.model.head import Standardise, build_head


def test_features_are_standardised_by_those_of_the_training_images() -> None:
    activations = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 3, 4, 5, 0.0])
    head = build_head(activations, 3, dropout=0.5, seed=0)
    standardise = head[0]
    assert isinstance(standardise, Standardise)
    reference = StandardScaler().fit(activations.numpy())
    spread = torch.from_numpy(reference.var_).sqrt()
    expected = (activations - torch.from_numpy(reference.mean_)) / (spread + 0.1 * spread.mean())
    torch.testing.assert_close(standardise(activations), expected.float(), atol=1e-5, rtol=1e-5)
    assert standardise(activations)[:, 5].abs().max() < 1e-5  # a feature that never varies stays silent


def test_a_single_training_image_is_enough() -> None:
    assert build_head(torch.ones(1, 4), 2, dropout=0.0, seed=0)(torch.ones(1, 4)).isfinite().all()


def test_what_the_head_was_fitted_to_travels_with_its_weights() -> None:
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
