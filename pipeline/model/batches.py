"""How a list of samples is cut into batches: even ones, for training, for accumulation and for prediction."""

from itertools import pairwise


def even_batches(order: list[int], batch_size: int) -> list[list[int]]:
    """Cut an order of samples into batches of at most `batch_size`; their sizes differ by at most one.

    Every sample is used in every epoch, and no batch of a single sample is left over, on which batch norm would fail.
    """
    return in_parts(order, num_batches(len(order), batch_size))


def in_parts(order: list[int], count: int) -> list[list[int]]:
    """Cut an order of samples into `count` parts; their sizes differ by at most one."""
    bounds = [i * len(order) // count for i in range(count + 1)]
    return [order[low:high] for low, high in pairwise(bounds)]


def num_batches(num_samples: int, batch_size: int) -> int:
    """How many batches `even_batches` makes: in training, the steps of an epoch."""
    return -(-num_samples // batch_size)
