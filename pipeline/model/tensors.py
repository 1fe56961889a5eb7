"""Weights on disk: safetensors, which cannot run code when they are loaded."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.files import atomic_file
from pipeline.model.finite import check_tensors

AGAIN = "run the stage again; if that does not help, lower its learning rate, or set model.precision=fp32"


def save_tensors(tensors: dict[str, Tensor], path: Path, *, half: bool = False) -> None:
    """Write tensors as safetensors; `half` stores floating point tensors in half precision.

    Raises NumbersError, and writes nothing, if a value is NaN or infinite.
    """
    stored = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
    if half:
        stored = {n: t.half() if t.is_floating_point() else t for n, t in stored.items()}
    check_tensors(stored, of=f"{path.name} is not written", advice=AGAIN)
    with atomic_file(path) as file:
        file.write(save(stored))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; half precision becomes single, in memory.

    All else is mapped: the tensors lie in the file, of which the system holds in memory what was used last, once for
    all processes, and gives up what it has no room for. They may be changed, which copies the pages that are: nothing
    gets into the file. A published file is replaced, never written to, so they keep their values.

    Raises ValueError, with the path, if it is unreadable, or a value is NaN or infinite.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); convert it with safetensors") from error
    check_tensors(tensors, of=str(path), advice="make or download it again")
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
