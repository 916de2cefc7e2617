"""Choose the number of engines by the bytes of caches that they hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

RESIDENT_BYTES = "resident_cache_bytes"
_HYSTERESIS = 0.8  # a scale-down leaves this much of each engine filled, at most


def engines_wanted(
    resident_bytes: Iterable[float], bytes_per_engine: float, num_engines: int
) -> int:
    """Return how many engines the caches of all sessions want.

    Args:
        resident_bytes: of each engine.
        bytes_per_engine: that one is to hold.
        num_engines: that run now; fewer are wanted only if the others stay below four fifths.
    """
    total = sum(resident_bytes)
    wanted = max(1, math.ceil(total / bytes_per_engine))
    if wanted >= num_engines:
        return wanted
    return min(num_engines, max(1, math.ceil(total / (_HYSTERESIS * bytes_per_engine))))


class ResidentBytesPolicy:
    """Scale as `engines_wanted` says; Ray Serve makes it from a path and these arguments.

    Args:
        bytes_per_engine: that one engine is to hold.
    """

    def __init__(self, bytes_per_engine: float) -> None:
        self._bytes_per_engine = bytes_per_engine

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of engines, and a state, of which there is none."""
        resident = context.aggregated_metrics.get(RESIDENT_BYTES, {}).values()
        wanted = engines_wanted(resident, self._bytes_per_engine, context.target_num_replicas)
        bounds = (context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas)
        return min(max(wanted, bounds[0]), bounds[1]), {}
