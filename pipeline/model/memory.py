"""Where memory runs out while a model computes, the error says how many images at once would fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.shortage import ShortOfMemoryError, asked_bytes, free_bytes, is_shortage, readable


@contextmanager
def fitting(device: torch.device, count: int) -> Iterator[None]:
    """Raise ShortOfMemoryError where memory runs out in the block, which computes on `count` samples at once."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise ShortOfMemoryError(_describe(error, device, count)) from None


def _describe(error: BaseException, device: torch.device, count: int) -> str:
    asked, free = asked_bytes(error), _free_on(device)
    figures = [f"{readable(asked)} more were needed"] if asked is not None else []
    figures += [f"{readable(free)} were free"] if free is not None else []
    found = f"memory of {device.type} ran out with {count} {'image' if count == 1 else 'images'} at once" + (
        f" ({', '.join(figures)})" if figures else ""
    )
    if count == 1:
        return f"{found}: set a smaller data.image_size or model.arch, or another runtime.device"
    fits = estimate_fitting(count, asked, free)
    return f"{found}: set data.micro_batch_size={fits} (an estimate; data.batch_size may stay as it is)"


def estimate_fitting(count: int, asked: int | None, free: int | None) -> int:
    """How many images at once would fit: half as many, or fewer if what was asked for, scaled, is still not free."""
    fits = max(1, count // 2)
    while fits > 1 and asked is not None and free is not None and asked * fits / count > free:
        fits //= 2
    return fits


def _free_on(device: torch.device) -> int | None:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return free_bytes() if device.type == "cpu" else None
