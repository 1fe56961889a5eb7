"""Random numbers as pure functions of what they are for.

Every draw comes from a generator that is seeded with the run's seed and the names of what is drawn (the stage, the
epoch, the sample), never from the state that earlier draws left. So results do not depend on the number of workers, nor
on the point at which a killed run resumes.
"""

import hashlib

import torch


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed made of `parts`; different parts give independent streams."""
    text = "\0".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seed torch's global generator on the CPU and, where one is in use, on the GPU."""
    seed = seed_of(*parts)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


def permutation(count: int, *parts: int | str) -> list[int]:
    """A random order of `range(count)`."""
    generator = torch.Generator().manual_seed(seed_of(*parts))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order
