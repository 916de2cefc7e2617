"""Who computes between two decode steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamingllm.kernels import native


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch's operations on this thread.

    Torch's other threads stay awake for some milliseconds after they have helped, on the processors
    that the next decode step wants. Not `torch.set_num_threads`, which other threads would notice.
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
