"""Sessions with a future event each, in the order of ticks."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from benchmarks.scale.draws import Integers

_NOBODY: Integers = np.empty(0, dtype=np.int64)


class Calendar:
    """Keep events by tick; those of a coarse period are sorted when it begins.

    Args:
        horizon_ticks: end of the simulation; later events are counted and dropped.
        period_ticks: length of a coarse period.
    """

    def __init__(self, horizon_ticks: int, period_ticks: int = 64) -> None:
        self._horizon, self._period_ticks = horizon_ticks, period_ticks
        self._period = -1
        self._pending: list[tuple[Integers, Integers]] = []
        self._periods: dict[int, list[tuple[Integers, Integers]]] = defaultdict(list)
        self._near: dict[int, list[Integers]] = defaultdict(list)
        self._ticks: Integers = _NOBODY
        self._sessions: Integers = _NOBODY
        self.num_events = 0
        self.num_dropped = 0

    def push(self, ticks: Integers, sessions: Integers) -> None:
        """Add events, none of them at or before the tick popped last."""
        inside = ticks < self._horizon
        if not inside.all():
            self.num_dropped += int((~inside).sum())
            ticks, sessions = ticks[inside], sessions[inside]
        self.num_events += len(ticks)
        near = ticks < (self._period + 1) * self._period_ticks
        for tick in np.unique(ticks[near]):
            self._near[int(tick)].append(sessions[near & (ticks == tick)])
        if not near.all():
            self._pending.append((ticks[~near], sessions[~near]))

    def pop(self, tick: int) -> Integers:
        """Remove and return the sessions of a tick, in their order; ticks come one by one."""
        if tick // self._period_ticks != self._period:
            self._begin(tick // self._period_ticks)
        first, last = np.searchsorted(self._ticks, (tick, tick + 1))
        found = self._sessions[first:last]
        if tick in self._near:
            found = np.concatenate([found, *self._near.pop(tick)])
        self.num_events -= len(found)
        return np.sort(found)

    def _begin(self, period: int) -> None:
        self._period = period
        self._distribute()
        pieces = self._periods.pop(period, [])
        ticks = np.concatenate([_NOBODY, *(piece[0] for piece in pieces)])
        sessions = np.concatenate([_NOBODY, *(piece[1] for piece in pieces)])
        order = np.argsort(ticks, kind="stable")
        self._ticks, self._sessions = ticks[order], sessions[order]

    def _distribute(self) -> None:
        if not self._pending:
            return
        ticks = np.concatenate([piece[0] for piece in self._pending])
        sessions = np.concatenate([piece[1] for piece in self._pending])
        self._pending = []
        order = np.argsort(ticks, kind="stable")
        ticks, sessions = ticks[order], sessions[order]
        periods = ticks // self._period_ticks
        cuts = np.flatnonzero(np.diff(periods)) + 1
        for begin, end in zip([0, *cuts], [*cuts, len(ticks)], strict=True):
            self._periods[int(periods[begin])].append((ticks[begin:end], sessions[begin:end]))
