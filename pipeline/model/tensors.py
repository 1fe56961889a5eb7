"""Weights on disk: safetensors, which cannot run code when they are loaded."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path, *, half: bool = False) -> None:
    """Write tensors as safetensors; `half` stores floating point ones in half precision."""
    stored = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
    if half:
        stored = {n: t.half() if t.is_floating_point() else t for n, t in stored.items()}
    save_file(stored, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, half precision widened to single. Raises ValueError naming an unreadable file."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); convert it with safetensors") from error
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
