"""What is freed stays with the process: the system maps no new memory for a block that was there before."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from pipeline.model.allocator import keep_freed_memory
assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()  # the heap grows to its size
print(faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_freed_block_is_used_again() -> None:
    pages = int(subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout)
    assert pages < 2**10  # a block has 2**14 pages, and is made twenty times
