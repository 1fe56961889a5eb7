"""The test of the best among several candidates: as strict as it says, alone or among many."""

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.bootstrap import chance_of_best


@pytest.mark.slow
@pytest.mark.parametrize("candidates", [1, 3, 8])
def test_candidates_that_are_no_better_are_seldom_found_better(candidates: int) -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(60, 1, 80))  # cycles are alike: their losses go together
    differences = shared + generator.normal(size=(60, candidates, 80))
    found = [chance_of_best(d, seed=0) for d in differences]
    assert 0 <= np.mean(np.array(found) < 0.1) <= 0.25
    assert 0.3 < np.mean(found) < 0.7


def test_one_candidate_is_a_paired_test() -> None:
    differences = np.random.default_rng(1).normal(-0.15, 1.0, size=(1, 400))
    expected = stats.ttest_1samp(differences[0], 0.0, alternative="less").pvalue
    assert chance_of_best(differences, seed=0) == pytest.approx(expected, abs=0.01)


def test_a_steady_gain_counts_beside_a_noisy_candidate() -> None:
    generator = np.random.default_rng(2)
    steady, noisy = generator.normal(-0.1, 0.1, size=100), generator.normal(0.0, 5.0, size=100)
    assert chance_of_best(np.stack([steady, noisy]), seed=0) < 0.001


def test_candidates_that_changed_nothing_are_no_better() -> None:
    assert chance_of_best(np.zeros((2, 10)), seed=0) == 1.0
