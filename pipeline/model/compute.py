"""The device that a stage computes on, and what its numbers depend on."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from pipeline.settings import Runtime, SettingsError


def prepare(runtime: Runtime) -> dict[str, Any]:
    """Fix threads and deterministic kernels; return what the result depends on, to be stored with it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(runtime.threads or _num_cores())
    torch.use_deterministic_algorithms(True)
    device = choose_device(runtime)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "torch": torch.__version__,
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "processor": processor(),
    }


def processor() -> str:
    """The processor, as far as torch tells what its last bits may depend on: name, caches and instruction sets.

    Products of matrices are cut into blocks by the size of the caches, and summed by the widest instructions.
    """
    told = torch.cpu.get_capabilities()
    caches = [f"{name}={told[name]}" for name in sorted(told) if name.endswith("cache_size")]
    instructions = sorted(name for name, present in told.items() if present is True)
    return " ".join([told.get("cpu_name", platform.machine()), *caches, *instructions])


def choose_device(runtime: Runtime) -> torch.device:
    """The device that `runtime.device` names. Raises SettingsError where this machine does not have it."""
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(runtime.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"runtime.device={runtime.device} is not usable here ({str(error).splitlines()[0]}); try auto or cpu"
        ) from None
    return device


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Compute the block in the precision that `model.precision` names."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Move images [N, 3, H, W] to `device`, channels last: the faster order for convolutions on CPU and GPU."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def move_model(model: Module, device: torch.device) -> None:
    """Move `model` to `device`, its convolutions channels last."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
