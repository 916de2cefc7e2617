"""Freed memory stays with the process; tried in one of its own, for it holds for the whole."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

BLOCK_PAGES = 64 << 20 >> 12
FAULTS_OF_EIGHT_BLOCKS = """
import ctypes
import resource
import torch
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages would hide the small ones
from streamingllm.kernels.allocation import keep_freed_memory
if {keeps}:
    keep_freed_memory()
for _ in range(8):  # small neighbours may take the place of one or two
    torch.ones(64 << 20, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(64 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's malloc")
@pytest.mark.parametrize("keeps", [True, False])
def test_blocks_that_were_freed_are_used_again(keeps: bool) -> None:
    program = FAULTS_OF_EIGHT_BLOCKS.format(keeps=keeps)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    if keeps:
        assert int(done.stdout) < BLOCK_PAGES
    else:
        assert int(done.stdout) > 7 * BLOCK_PAGES
