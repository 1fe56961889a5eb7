"""Several processes that compute one stage: which share each has, and how the shares become one result.

All of them, the *ranks*, run the same code on the same settings, each on its share of the samples. The first owns the
folders: it alone writes (`is_first`), and what is read from there it tells the others (`told`), for they might come to
another answer a moment later. A stop that one of them is asked for is obeyed by all at the same point, so that none
waits for another that has gone. Where one process computes a stage, nothing here does anything.

The harness starts the ranks. Gradients are summed, and losses divided by the size of the whole batch, so the sum over
ranks is what one process accumulates over the same parts (Goyal et al. 2017, arXiv:1706.02677, section 3).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.model.batches import in_parts, num_batches
from pipeline.stopping import Stopped, hold_back, noted, obey

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long a rank waits for one that is alive; of one that ends it hears at once."""


@dataclass
class _World:
    """Who computes the present stage."""

    count: int = 1
    number: int = 0
    threads: int | None = None
    """Of the process when it is alone."""


_world = _World()


class HelpedError(BaseException):
    """This rank has done its share of the stage; the rest is for the first one."""


@contextmanager
def entered(count: int, number: int, *, on_this_machine: int) -> Iterator[None]:
    """Compute the block as rank `number`, from 0, of `count` that are connected; those on a machine divide its threads.

    After `leave`, the first one is alone, also within the block.
    """
    _world.count, _world.number, _world.threads = count, number, torch.get_num_threads()
    torch.set_num_threads(max(1, _world.threads // on_this_machine))
    hold_back(True)
    try:
        yield
    finally:
        _be_alone()


def leave() -> None:
    """Go on with the first rank alone. Raises HelpedError in the others."""
    if not is_first():
        raise HelpedError
    _be_alone()


def _be_alone() -> None:
    _world.count, _world.number = 1, 0
    if _world.threads is not None:
        torch.set_num_threads(_world.threads)
        hold_back(False)
    _world.threads = None


def count() -> int:
    """How many ranks compute the present stage."""
    return _world.count


def is_first() -> bool:
    """Whether this process writes."""
    return _world.number == 0


def share(items: Sequence[T]) -> list[T]:
    """This rank's items: consecutive ones, in numbers that differ by at most one between ranks."""
    return list(items[first_of_share(len(items)) : (_world.number + 1) * len(items) // _world.count])


def first_of_share(num_items: int) -> int:
    """The number of the first item of this rank's share."""
    return _world.number * num_items // _world.count


def dealt(items: Sequence[T]) -> list[T]:
    """This rank's items where they are dealt in turn."""
    return list(items[_world.number :: _world.count])


def merged(own: Iterator[T], total: int) -> Iterator[T]:
    """What the ranks make of `total` items that were dealt, in the order of the items. Raises Stopped in all ranks."""
    for start in range(0, total, _world.count):
        yield from gathered(lambda: next(own, None))[: total - start]  # type: ignore[misc]


def cut(batch: list[int], size: int) -> list[list[int]]:
    """Cut a batch evenly into parts of at most `size` samples: as many for each rank, if there are enough samples.

    One rank computes the parts that several share, if their number is a multiple of the ranks'.
    """
    rounds = -(-num_batches(len(batch), size) // _world.count)
    return in_parts(batch, min(len(batch), rounds * _world.count))


def told(compute: Callable[[], T]) -> T:
    """What `compute` gives in the first rank, which alone calls it."""
    return gathered(lambda: compute() if is_first() else None)[0]  # type: ignore[return-value]


def in_turn(compute: Callable[[], T]) -> T:
    """What `compute` gives in this rank, which calls it when the first has done so: it finds what that downloaded."""
    mine = [compute()] if is_first() else []
    gathered(lambda: None)
    return mine[0] if mine else compute()


def gathered(compute: Callable[[], T]) -> list[T]:
    """What `compute` gives in each rank, in their order. Raises Stopped in all if one of them was asked to stop."""
    if _world.count == 1:
        return [compute()]
    mine: T | Stopped
    hold_back(False)
    try:
        mine = compute()
    except Stopped as stopped:
        mine = stopped
    finally:
        hold_back(True)
    found: list[Any] = [None] * _world.count
    dist.all_gather_object(found, mine.status - 128 if isinstance(mine, Stopped) else [mine])
    for each in found:
        if isinstance(each, int):
            obey(each)
            raise Stopped(each)
    return [each for (each,) in found]


def agree_to_stop() -> None:
    """Let the next `raise_if_requested` raise Stopped in all ranks, if one of them was asked to stop."""
    if _world.count > 1 and (number := int(_highest(torch.tensor(noted() or 0)))):
        obey(number)


def require_equal(model: nn.Module) -> None:
    """Raise ValueError, which names the ranks, unless `model` has the same weights in all of them."""
    if _world.count == 1:
        return
    sums = gathered(lambda: [float(t.double().abs().sum()) for t in model.state_dict().values()])
    if differing := [str(number) for number, each in enumerate(sums, start=1) if each != sums[0]]:
        raise ValueError(
            f"process {', '.join(differing)} of {len(sums)} has come to other weights than process 1: compute on "
            "machines of the same kind, with the same version of torch, or set runtime.processes=1"
        )


def summed(value: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    if _world.count > 1:
        dist.all_reduce(value)
    return value


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Set each gradient to the sum over all ranks; one that no rank has stays None."""
    if _world.count == 1:
        return
    has_any = _highest(torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)).tolist()
    wanted = [p for p, has in zip(parameters, has_any, strict=True) if has]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in wanted])
    for parameter, piece in zip(wanted, torch.split(summed(flat), [p.numel() for p in wanted]), strict=True):
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        parameter.grad.copy_(piece.view_as(parameter))


def _highest(values: Tensor) -> Tensor:
    """The largest of all ranks, on the CPU: a GPU is not waited for."""
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return values
