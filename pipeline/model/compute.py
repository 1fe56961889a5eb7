"""How a model computes: device, precision and memory order, and the forward pass of training and prediction."""

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.model.allocator import keep_freed_memory
from pipeline.model.memory import fitting
from pipeline.processes import sharing_cores
from pipeline.settings import Runtime, SettingsError
from pipeline.stopping import raise_if_requested

FEW_BYTES = 2**24
"""Activations of 8,000 images with 512 features each."""


@dataclass(frozen=True)
class Computation:
    """A model, and how it computes."""

    model: nn.Module
    device: torch.device
    """Where the model's weights are."""
    precision: str
    """`fp32` or `bf16`, see `model.precision`."""
    micro_batch_size: int
    """The largest number of samples that go through the model at once."""


def forward(computation: Computation, inputs: Tensor, model: nn.Module | None = None) -> Tensor:
    """One forward pass of images [N, 3, H, W] or activations [N, num_features] from any device.

    `model` stands in for the computation's own, if given. Returns its output (logits, or features) in single precision,
    on the computation's device. The model's mode and whether gradients are recorded are up to the caller. Raises
    ShortOfMemoryError.
    """
    with computing_in(computation.precision, computation.device):
        are_images = inputs.dim() == 4
        here = to_device(inputs, computation.device) if are_images else inputs.to(computation.device)
        with fitting(computation.device, len(inputs)):
            output: Tensor = (computation.model if model is None else model)(here)
            return output.float()


@torch.no_grad()
def predict(computation: Computation, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits [N, num_classes] and targets [N] of all batches of (inputs, targets), in order, on the CPU.

    The model is put into evaluation mode. No batch may be larger than `micro_batch_size`. Raises Stopped between two
    batches if the run is asked to stop.
    """
    computation.model.eval()
    outputs = []
    for inputs, targets in batches:
        raise_if_requested()
        outputs.append((forward(computation, inputs), targets))
    return torch.cat([logits for logits, _ in outputs]).cpu(), torch.cat([targets for _, targets in outputs])


def score(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean loss in nats, and accuracy, of logits [N, num_classes] and targets [N]."""
    accuracy = (logits.argmax(1) == targets).double().mean().item()
    return F.cross_entropy(logits.double(), targets).item(), accuracy


def evaluate(computation: Computation, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Mean loss and accuracy over all samples of the batches of (inputs, targets), in evaluation mode."""
    return score(*predict(computation, batches))


def prepare(runtime: Runtime) -> dict[str, Any]:
    """Fix the number of threads and choose deterministic kernels; return what results depend on, to store with them.

    Kernels that leave memory unset for others to fill stay so: `fill_uninitialized_memory` writes each of their outputs
    twice, to find errors in kernels, and costs 3 to 15 % of a step.
    """
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads(runtime))
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return environment(runtime)


def environment(runtime: Runtime) -> dict[str, Any]:
    """What results depend on beside settings, inputs and code."""
    device = choose_device(runtime)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "torch": torch.__version__,
        "device": f"{device.type} ({name})",
        "threads": num_threads(runtime),
        "processor": processor(),
    }


def num_threads(runtime: Runtime) -> int:
    """The threads that compute a stage, in all its processes on this machine."""
    return runtime.threads or num_cores()


@contextmanager
def threads_for(values: Path) -> Iterator[None]:
    """Compute the block, on what this file holds, in one thread if that is less than `FEW_BYTES`.

    On little, threads take longer to wait for each other than to compute: a product of two vectors of 5,000 numbers
    takes two threads five times as long as one. And they take the cores from other runs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if values.stat().st_size < FEW_BYTES else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def processor() -> str:
    """Describe the processor, as far as the last bits of results may depend on it: name, caches and instruction sets.

    Matrix products are cut into blocks by the size of the caches, and summed by the widest instructions.
    """
    known = torch.cpu.get_capabilities()
    caches = [f"{name}={known[name]}" for name in sorted(known) if name.endswith("cache_size")]
    instructions = sorted(name for name, present in known.items() if present is True)
    return " ".join([known.get("cpu_name", platform.machine()), *caches, *instructions])


def choose_device(runtime: Runtime) -> torch.device:
    """The device that `runtime.device` names. Raises SettingsError if this machine does not have it."""
    return find_device(runtime.device, setting="runtime.device=")


def find_device(name: str, *, setting: str = "--device ") -> torch.device:
    """The device of this name: `auto` (CUDA where present), `cpu`, `cuda:1`, ...

    Raises SettingsError, which names the `setting`, if this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"{setting}{name} is not usable here ({str(error).splitlines()[0]}); try auto or cpu"
        ) from None
    return device


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Compute the block in the precision that `model.precision` names."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Move images [N, 3, H, W] to `device`, channels last: the faster memory order for convolutions on CPU and GPU."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def move_model(model: nn.Module, device: torch.device) -> None:
    """Move `model` to `device`, the weights of its convolutions channels last."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def num_cores() -> int:
    """The cores that this process may use: those that the system and Slurm give it, divided among the jobs of a sweep.

    Slurm says how many it gave a task in `SLURM_CPUS_PER_TASK`, also where it does not bind the task to them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = int(os.environ.get("SLURM_CPUS_PER_TASK") or cores)
    return max(1, min(cores, given) // sharing_cores())
