"""Keep freed memory in the process for the next allocation."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_ALL_MEMORY = 2**31 - 1


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the system.

    The activations of a chunk are megabytes, the logits of all its tokens some 100 MB. Memory that
    is new for every layer and chunk is filled with zeros first, page by page, which takes a
    twentieth of the time. Call it after a model is loaded, so that memory for loading is returned.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, _ALL_MEMORY)
