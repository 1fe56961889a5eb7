"""Memory that runs out: one error that names the setting, and a number of images that would fit."""

import pytest
import torch
from torch import Tensor, nn

from pipeline import shortage
from pipeline.harness.stop import describe_shortage
from pipeline.model.compute import Computation, forward
from pipeline.model.memory import estimate_fitting, fitting
from pipeline.shortage import ShortOfMemoryError, asked_bytes, free_bytes, is_shortage

CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB"
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000 bytes. Error code 12 (Cannot allocate memory)"
)
MPS = "MPS backend out of memory (MPS allocated: 8.00 GB). Tried to allocate 256 bytes on private pool."


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (torch.OutOfMemoryError(CUDA), int(2.5 * 2**30)),
        (RuntimeError(CPU), 4_000_000_000),
        (RuntimeError(MPS), 256),
        (MemoryError(), None),
        (MemoryError("Unable to allocate 5 GiB for an array"), None),
    ],
)
def test_each_kind_is_recognised_and_named(error: Exception, asked: int | None) -> None:
    assert is_shortage(error)
    assert asked_bytes(error) == asked
    with (
        pytest.raises(
            ShortOfMemoryError, match=r"ran out with 32 images at once .*data\.micro_batch_size=\d+"
        ) as caught,
        fitting(torch.device("cpu"), 32),
    ):
        raise error
    assert "\n" not in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), fitting(torch.device("cpu"), 32):
        raise RuntimeError("size mismatch")


def test_a_real_lack_of_memory_is_named() -> None:
    class Hungry(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.sum() + torch.empty(len(images), 10**15).sum()

    with pytest.raises(ShortOfMemoryError, match=r"memory of cpu ran out with 4 images .*GiB more were needed, .*=1 "):
        forward(Computation(Hungry(), torch.device("cpu"), "fp32", 4), torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("count", "asked", "free", "fits"),
    [(64, 2**30, 2**31, 32), (64, 2**30, 2**28, 16), (64, 2**30, 2**20, 1), (64, None, 2**20, 32), (3, 9, None, 1)],
)
def test_what_would_fit_is_halved_until_it_does(count: int, asked: int | None, free: int | None, fits: int) -> None:
    assert estimate_fitting(count, asked, free) == fits


def test_a_single_image_that_is_too_large_has_other_advice() -> None:
    advice = r"with 1 image at once.*smaller data\.image_size"
    with pytest.raises(ShortOfMemoryError, match=advice), fitting(torch.device("cpu"), 1):
        raise MemoryError


def test_free_memory_is_known_here_and_limits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortage, "_available", lambda: 2**40)
    monkeypatch.setattr(shortage, "_left_to_process", lambda: 5)
    assert free_bytes() == 5


def test_a_lack_of_memory_elsewhere_names_settings_and_their_values() -> None:
    text = describe_shortage(MemoryError(), {"data": {"micro_batch_size": 32, "image_size": 224}})
    assert text == (
        "memory ran out: lower data.micro_batch_size (now 32) and data.image_size (now 224), or UNFREEZE_WORKERS, and "
        "type the same command again"
    )
