"""Limit torch to one thread between decode steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamingllm.kernels import native


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch's operations to the calling thread.

    Torch's other threads spin for some milliseconds after each operation, on processors that the
    next decode step needs. The function `torch.set_num_threads` would affect other threads.
    """
    library = native.loaded()
    if library is None:
        yield
        return
    before = library.streamingllm_use_threads(1)
    try:
        yield
    finally:
        library.streamingllm_use_threads(before)
