"""Freed memory stays with the process; tried in one of its own, for it holds for the whole."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

BLOCK_BYTES, COUNT = 64 << 20, 16
# Ask malloc what it holds: nothing that depends on the system's paging or on its load.
BOOKS_OF_BLOCKS = """
import ctypes, json, torch
from streamingllm.kernels.allocation import keep_freed_memory

libc = ctypes.CDLL(None)
is_old = not hasattr(libc, "mallinfo2")  # before glibc 2.33 its numbers are C integers
kind = ctypes.c_int if is_old else ctypes.c_size_t
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Books(ctypes.Structure):
    _fields_ = [(name, kind) for name in names]
ask = libc.mallinfo if is_old else libc.mallinfo2
ask.restype = Books

def held():
    books = ask()
    return {{"heap": books.arena, "free": books.fordblks, "mapped": books.hblkhd}}

if {keeps}:
    keep_freed_memory()
found = [held()]
for _ in range({count}):
    block = torch.ones({size}, dtype=torch.uint8)
    found.append(held())
    del block
    found.append(held())
print(json.dumps(found))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's malloc")
@pytest.mark.parametrize("keeps", [True, False])
def test_a_block_that_was_freed_is_used_again(keeps: bool) -> None:
    program = BOOKS_OF_BLOCKS.format(keeps=keeps, size=BLOCK_BYTES, count=COUNT)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    start, *found = json.loads(done.stdout)
    assert len(found) == 2 * COUNT
    for held, freed in zip(found[::2], found[1::2], strict=True):
        if keeps:
            assert held["heap"] >= start["heap"] + BLOCK_BYTES - start["free"]
            assert held["mapped"] == start["mapped"]
            assert freed["heap"] >= held["heap"]  # nothing goes back to the system
        else:  # a mapping of its own, which goes back
            assert held["mapped"] >= start["mapped"] + BLOCK_BYTES
            assert freed["mapped"] == start["mapped"]
    if keeps:  # small neighbours may take the place of some, not of all
        assert found[-1]["heap"] < found[COUNT]["heap"] + BLOCK_BYTES
