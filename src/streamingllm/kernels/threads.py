"""Who computes between two decode steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch's operations on this thread.

    Torch's other threads stay awake for some milliseconds after they have helped, on the processors
    that the next decode step wants.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
