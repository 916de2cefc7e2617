"""What this process does with memory that it no longer needs."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_AS_MUCH_AS_THERE_IS = 2**31 - 1


def keep_freed_memory() -> None:
    """Have glibc keep it for the next allocation instead of handing it back to the system.

    The activations of a chunk are megabytes, the logits of all its tokens some 100 MB. Made new for
    every layer and chunk, the system fills them with zeros first, page by page, which takes a
    twentieth of the time. To be called when a model is loaded: what loading needed goes back.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, _AS_MUCH_AS_THERE_IS)
