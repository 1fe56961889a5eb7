"""How work is shared among ranks, without starting any."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.model import ranks
from pipeline.model.batches import even_batches

COUNTS = st.integers(1, 9)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    yield
    ranks._world.count, ranks._world.number = 1, 0


def of_each(count: int) -> Iterator[None]:
    for number in range(count):
        ranks._world.count, ranks._world.number = count, number
        yield


@given(st.lists(st.integers(), max_size=60), COUNTS)
def test_shares_are_the_items_in_order_and_even(items: list[int], count: int) -> None:
    shares, firsts = zip(*((ranks.share(items), ranks.first_of_share(len(items))) for _ in of_each(count)), strict=True)
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [items[first : first + len(share)] for first, share in zip(firsts, shares, strict=True)] == list(shares)


@given(st.lists(st.integers(), min_size=1, max_size=60), st.integers(1, 20), COUNTS)
def test_a_batch_is_cut_for_all_ranks_alike(batch: list[int], size: int, count: int) -> None:
    cuts = [ranks.cut(batch, size) for _ in of_each(count)]
    assert all(cut == cuts[0] for cut in cuts)
    parts = cuts[0]
    assert [sample for part in parts for sample in part] == batch
    assert 1 <= min(map(len, parts)) <= max(map(len, parts)) <= size
    assert len(parts) % count == 0 or len(parts) == len(batch)
    if count == 1:
        assert parts == even_batches(batch, size)


def test_other_weights_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 1)
    ranks.require_equal(model)

    def gathered(compute: Callable[[], list[float]]) -> list[list[float]]:
        ours = compute()
        return [ours, [ours[0], ours[1] + 1e-7], ours]

    monkeypatch.setattr(ranks, "gathered", gathered)
    ranks._world.count = 3
    with pytest.raises(ValueError, match="process 2 of 3 has come to other weights than process 1"):
        ranks.require_equal(model)


def test_dealt_items_come_back_in_their_order() -> None:
    dealt = [ranks.dealt(range(7)) for _ in of_each(3)]
    assert dealt == [[0, 3, 6], [1, 4], [2, 5]]
