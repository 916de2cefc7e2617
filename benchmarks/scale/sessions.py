"""One array for each fact of a session."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.scale.draws import Integers

AWAY, CUT, RESTORING, WAITING, RUNNING = range(5)


class Sessions:
    """Hold where each session is, what its turn does, and which replicas have its state.

    Attributes:
        phase: AWAY between turns, CUT until its turn is tried again, RESTORING, WAITING or RUNNING.
        turn: turns that have ended.
        where, life: replica of its turn, and which life of that replica.
        home, home_life, touched: replica of its last turn, its life then, and the tick.
        left, left_life, left_tick: the replica before that one.
    """

    def __init__(self, number: int) -> None:
        def zeros(kind: type[np.generic]) -> NDArray[Any]:
            return np.zeros(number, dtype=kind)

        self.phase, self.batch = zeros(np.int8), zeros(np.int8)
        self.restored = zeros(np.bool_)
        self.turn, self.arrived, self.started = zeros(np.int32), zeros(np.int32), zeros(np.int32)
        self.where, self.life = zeros(np.int16), zeros(np.int32)
        self.home, self.home_life = np.full(number, -1, np.int16), zeros(np.int32)
        self.touched = zeros(np.int32)
        self.left, self.left_life = np.full(number, -1, np.int16), zeros(np.int32)
        self.left_tick = zeros(np.int32)
        self.prompt_micro, self.work = zeros(np.int64), zeros(np.int64)

    def is_resident(
        self, sessions: Integers, lives: NDArray[np.int32], after: int
    ) -> NDArray[np.bool_]:
        """Return whether the replica of each session's turn holds its newest state: [N].

        Args:
            sessions: [N].
            lives: [replicas], how often each was lost.
            after: tick; states touched then or before have left the replica.
        """
        home = self.home[sessions]
        is_home = (home >= 0) & (home == self.where[sessions])
        is_same = self.home_life[sessions] == lives[home]
        found: NDArray[np.bool_] = is_home & is_same & (self.touched[sessions] > after)
        return found

    def num_stale(self, sessions: Integers, lives: NDArray[np.int32], after: int) -> int:
        """Return how many replicas of turns hold an older state than the store's."""
        left = self.left[sessions]
        returns = (left >= 0) & (left == self.where[sessions]) & (left != self.home[sessions])
        is_same = self.left_life[sessions] == lives[left]
        return int((returns & is_same & (self.left_tick[sessions] > after)).sum())

    def leave_home(self, sessions: Integers) -> None:
        """Note the replica that sessions had before their present one."""
        moved = sessions[(self.home[sessions] != self.where[sessions]) & (self.home[sessions] >= 0)]
        self.left[moved], self.left_life[moved] = self.home[moved], self.home_life[moved]
        self.left_tick[moved] = self.touched[moved]
