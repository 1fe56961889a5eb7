"""In which precision a network is computed: as the settings say, or what a short measurement finds faster.

bfloat16 halves the memory that moves and, where the processor multiplies it natively, the time. How much of that is
left depends on the architecture: on two cores with AVX-512 a training step took 0.45 (SqueezeNet at 224 pixels) to
1.74 (MobileNetV3 at 64) of the time in single precision; without such instructions, 9 to 11 times as long.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.files import digest
from pipeline.kept import read_kept, write_kept
from pipeline.model.compute import Computation, forward

Precision = Literal["fp32", "bf16"]

NATIVE = ("avx512_bf16", "amx_bf16", "bf16")
"""Capabilities of a CPU that multiplies bfloat16; the last is ARM's."""

FASTER = 0.8
"""Share of the time in single precision that bf16 may take to be chosen: a smaller gain is not worth the digits, and
the choice must be the same each time."""

PIXELS, FEWEST, MOST = 2**18, 2, 32
"""Images of about this many pixels together are measured, within these numbers."""
ROUNDS, BUDGET_S = 4, 2.0
"""Measured steps in each precision, fewer where they take longer than this together."""


def choose_precision(
    wanted: str,
    backbone: nn.Module,
    device: torch.device,
    *,
    image_size: int,
    kept: Path,
    identity: Mapping[str, Any],
    say: Callable[[str], None],
) -> Precision:
    """The precision for `backbone`: `wanted`, or for `auto` the faster one here.

    Args:
        wanted: `model.precision`.
        backbone: the network, on `device`. Its weights and mode stay as they are.
        device: where it computes.
        image_size: of its images, in pixels.
        kept: a folder of measured choices. The same question gets the same answer from then on.
        identity: what the answer depends on beside the device's properties, such as the architecture.
        say: is told what was chosen and why.
    """
    if wanted == "fp32":
        return "fp32"
    if not (native := is_native(device)):
        then = "computing in fp32" if wanted == "auto" else "model.precision=bf16 was asked for"
        say(f"this {device.type} has no instructions for bfloat16, and is many times slower in it: {then}")
    if wanted == "bf16" or not native:
        return "bf16" if wanted == "bf16" else "fp32"
    file = kept / f"{digest([dict(identity), image_size])[:20]}.json"
    share: float | None = read_kept(file)
    if share is None:
        write_kept(file, share := measure_share(backbone, device, image_size=image_size))
    chosen: Precision = "bf16" if share <= FASTER else "fp32"
    say(f"computing in {chosen}: a training step in bf16 takes {share:.2f} of the time of one in fp32 here")
    return chosen


def affordable(precision: str, device: torch.device) -> str:
    """The precision to predict in: single for a model made in bf16 where that would be many times slower.

    Single precision is the more exact of the two, so that answers differ by no more than they do between processors
    with bfloat16.
    """
    return precision if is_native(device) else "fp32"


def is_native(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(known.get(name) for name in NATIVE)


def measure_share(backbone: nn.Module, device: torch.device, *, image_size: int) -> float:
    """The time of a training step in bf16, as a share of one in fp32: fastest against fastest, taking turns."""
    generator = torch.Generator().manual_seed(0)
    count = min(max(PIXELS // image_size**2, FEWEST), MOST)
    images = torch.randn(count, 3, image_size, image_size, generator=generator)
    modes = [module.training for module in backbone.modules()]
    backbone.eval()  # statistics of batch norms stay as they are
    steps = [partial(_step, Computation(backbone, device, precision, count), images) for precision in ("fp32", "bf16")]
    for step in steps:
        step()  # kernels are made at the first
    times: list[list[float]] = []
    while not times or (len(times) < ROUNDS and sum(map(sum, times)) < BUDGET_S):
        times.append([_timed(step, device) for step in steps])
    single, half = (min(column) for column in zip(*times, strict=True))
    for module, mode in zip(backbone.modules(), modes, strict=True):
        module.training = mode
    backbone.zero_grad(set_to_none=True)
    return float(round(half / single, 3))


def _step(computation: Computation, images: Tensor) -> None:
    with torch.enable_grad():
        forward(computation, images).square().mean().backward()  # type: ignore[no-untyped-call]


def _timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds that a step takes: on a CPU those that it computes, whatever else runs on the machine."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began
