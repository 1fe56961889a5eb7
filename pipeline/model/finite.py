"""Numbers that went wrong: NaN and infinity are found before anything is changed or written because of them."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pipeline.numbers import NumbersError

SHOWN = 4
"""Names that an error lists."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value of any of the tensors is NaN or infinite.

    A sum keeps what is not finite, so each tensor is read once. Only where a sum is not finite, which large numbers can
    cause too, is each value looked at.
    """
    held = [t.detach() for t in tensors if t.is_floating_point()]
    sums = [t.sum() for t in held]
    if all(s.device.type == "cpu" for s in sums):
        is_fine = all(math.isfinite(s.item()) for s in sums)
    else:
        is_fine = bool(torch.stack([s.float() for s in sums]).isfinite().all())  # waits for the device once
    return is_fine or all(bool(t.isfinite().all()) for t in held)


def check_tensors(tensors: Mapping[str, Tensor], *, of: str, advice: str) -> None:
    """Raise NumbersError, which names the first broken tensor of `of`, unless all values are finite."""
    if not all_finite(tensors.values()):
        raise NumbersError(f"{of}: {describe_broken(tensors)}; {advice}")


def describe_broken(tensors: Mapping[str, Tensor]) -> str:
    """Say in which of the tensors, some of which are broken, how many values are NaN or infinite."""
    counts = {n: int((~t.isfinite()).sum()) for n, t in tensors.items() if t.is_floating_point()}
    name, count = next((n, c) for n, c in counts.items() if c)
    others = sum(map(bool, counts.values())) - 1
    more = f", as in {others} more" if others else ""
    return f"{count} of the {tensors[name].numel()} numbers of {name} are NaN or infinite{more}"


def broken_rows(values: Tensor) -> list[int]:
    """The rows of `values` [N, ...] that hold NaN or infinity."""
    rows: list[int] = (~values.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
    return rows


def check_rows(values: Tensor, names: Sequence[str] | None, *, of: str, advice: str) -> None:
    """Raise NumbersError, which names or counts the broken rows of `values` [N, ...], unless all are finite."""
    if not all_finite([values]):
        broken = [f"row {i}" if names is None else names[i] for i in broken_rows(values)]
        raise NumbersError(f"{of} for {listed(broken)} is NaN or infinite: {advice}")


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
