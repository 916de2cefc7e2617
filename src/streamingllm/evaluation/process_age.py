"""Measure the age of this process."""

from __future__ import annotations

import os
import time
from pathlib import Path

_IMPORTED = time.perf_counter()


def seconds_since_process_start() -> float:
    """Return the age of this process, the interpreter's start and imports included."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        booted = time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError, IndexError):
        return time.perf_counter() - _IMPORTED  # not on Linux: all but the imports before this one
