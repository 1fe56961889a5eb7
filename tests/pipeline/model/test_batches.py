"""Even batches: every sample once, in batches of nearly one size."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.batches import even_batches, num_batches


@given(count=st.integers(1, 300), batch_size=st.integers(1, 100))
def test_batches_hold_every_sample_once_and_are_even(count: int, batch_size: int) -> None:
    batches = even_batches(list(range(count)), batch_size)
    sizes = [len(b) for b in batches]
    assert [i for b in batches for i in b] == list(range(count))
    assert len(batches) == num_batches(count, batch_size) == math.ceil(count / batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
