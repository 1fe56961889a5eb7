"""The one place where other processes read images for torch: they are not stopped by the terminal, need no shared
memory where there is little, and an error says what became of them."""

import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.shortage import ShortOfMemoryError
from pipeline.stopping import raise_if_requested, shielded

SHARED_MEMORY = Path("/dev/shm")
"""Where torch puts the tensors that a process hands over. Containers often have 64 MiB there."""
ENOUGH_BYTES = 2**32
_LOST = ("exited unexpectedly", "killed by signal")
_T = TypeVar("_T")


def load(
    dataset: Dataset[Any],
    *,
    workers: int,
    collate: Callable[[Any], _T],
    batches: Sequence[Any] | None = None,
    batch_size: int | None = None,
) -> Iterator[_T]:
    """Yield what `collate` makes of each of `batches` (lists of keys), or of each `batch_size` items, or of each item.

    Args:
        dataset: is read by `workers` processes, or in this one if that is 0. The results are the same.
        workers: their number.
        collate: makes of a list of items, or of one, what is yielded.
        batches: lists of keys.
        batch_size: if there are no `batches`; None gives `collate` one item at a time.

    Raises ShortOfMemoryError if a process is killed, and Stopped if that was because the run is to stop.
    """
    how: dict[str, Any] = {"batch_size": batch_size} if batches is None else {"batch_sampler": batches}
    by_pipe = workers > 0 and not _has_shared_memory()
    loader: DataLoader[Any] = DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=_Packed(collate) if by_pipe else collate,
        generator=torch.Generator(),  # otherwise the loader draws its base seed from the global one
        **how,
    )
    with shielded():
        items = iter(loader)
    while True:
        try:
            item = next(items, None)
        except RuntimeError as error:
            if not any(sign in str(error) for sign in _LOST):
                raise
            raise_if_requested()
            raise ShortOfMemoryError(
                f"a process that reads images was lost ({str(error).splitlines()[0]}), most likely because memory ran "
                f"out: set UNFREEZE_WORKERS={workers // 2} and type the same command again"
            ) from None
        if item is None:
            return
        yield pickle.loads(item) if by_pipe else item


class _Packed:
    """Gives bytes, which go through a pipe, instead of tensors, which go through shared memory."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, items: Any) -> bytes:
        return pickle.dumps(self._collate(items), protocol=pickle.HIGHEST_PROTOCOL)


def _has_shared_memory() -> bool:
    return not SHARED_MEMORY.exists() or shutil.disk_usage(SHARED_MEMORY).free >= ENOUGH_BYTES
