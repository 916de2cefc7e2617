"""Ranks within groups, and queues of one server each."""

from __future__ import annotations

import numpy as np

from benchmarks.scale.draws import Integers


def ranks(groups: Integers) -> Integers:
    """Return how many equal entries come before each: [N]."""
    if not len(groups):
        return np.empty(0, dtype=np.int64)
    order = np.argsort(groups, kind="stable")
    sorted_groups = groups[order]
    begins = np.flatnonzero(np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]]))
    sizes = np.diff([*begins, len(groups)])
    found = np.empty(len(groups), dtype=np.int64)
    found[order] = np.arange(len(groups)) - np.repeat(begins, sizes)
    return found


class Queues:
    """Serve in order of arrival, each job in the same time; times are whole microseconds.

    Args:
        servers: number of queues.
        micros: of a job.
    """

    def __init__(self, servers: int, micros: int) -> None:
        self._micros = micros
        self.free_at: Integers = np.zeros(servers, dtype=np.int64)

    def serve(self, now: int, servers: Integers) -> Integers:
        """Return when each job is done, all of them having come now: [N].

        Args:
            now: in microseconds.
            servers: [N], the queue of each job.
        """
        begin = np.maximum(self.free_at[servers], now)
        done = begin + (ranks(servers) + 1) * self._micros
        np.maximum.at(self.free_at, servers, done)
        return done

    def backlog(self, now: int) -> int:
        """Return the microseconds that the longest queue has before it."""
        return max(0, int(self.free_at.max()) - now)
