"""Who has a place in an engine, and who waits for one."""

from __future__ import annotations

from collections import deque

from streamingllm.engine.params import FinishReason
from streamingllm.engine.slot_pool import Slot, SlotPool
from streamingllm.engine.stream import EngineStream
from streamingllm.errors import CapacityError, ConfigError


class Roster:
    """Give the rows of a pool to streams, first come, first served.

    Args:
        pool: whose rows are the places.
        max_waiting: streams that may wait for one.

    Attributes:
        held: streams that have a row, in the order they got it.
        waiting: those that have none yet.

    Raises:
        ConfigError: `max_waiting` is negative.
    """

    def __init__(self, pool: SlotPool, max_waiting: int) -> None:
        if max_waiting < 0:
            raise ConfigError(f"max_waiting={max_waiting}: must be a whole number >= 0")
        self.held: list[EngineStream] = []
        self.waiting: deque[EngineStream] = deque()
        self._pool = pool
        self._max_waiting = max_waiting
        self._num_streams = 0

    @property
    def has_work(self) -> bool:
        """Whether any stream can go on or join; other threads may ask."""
        can_admit = self._pool.num_free and any(not s.is_paused for s in [*self.waiting])
        return bool(can_admit) or any(stream.is_active for stream in [*self.held])

    def check_room(self) -> None:
        """Refuse one more stream if it could not even wait.

        Raises:
            CapacityError: all rows are taken, and `max_waiting` streams wait.
        """
        if not self._pool.num_free and len(self.waiting) >= self._max_waiting:
            raise CapacityError(
                f"max_waiting={self._max_waiting}: so many streams wait for one of "
                f"{self._pool.num_slots} places; try again when one has ended"
            )

    def join(self, stream: EngineStream) -> None:
        """Give a new stream a row, or let it wait."""
        self._number(stream)
        self.waiting.append(stream)
        self.admit()

    def admit(self) -> None:
        """Give free rows to those that have waited longest and do not rest."""
        for stream in [s for s in self.waiting if not s.is_paused]:
            if (slot := self._pool.open()) is None:
                return
            self.waiting.remove(stream)
            self._hold(stream, slot)

    def branch(self, stream: EngineStream, other: EngineStream) -> None:
        """Give a new stream a copy of another's row.

        Raises:
            CapacityError: the other waits for a row itself, or all are taken.
        """
        slot = None if stream.slot is None else self._pool.open()
        if stream.slot is None or slot is None:
            raise CapacityError(
                f"fork: a copy needs one of {self._pool.num_slots} places at once, and all are "
                "taken; release an idle stream or wait until one has ended"
            )
        slot.copy_from(stream.slot)
        self._number(other)
        self._hold(other, slot)
        other.num_seen_tokens = stream.num_seen_tokens

    def end(self, stream: EngineStream, finish_reason: FinishReason) -> None:
        """Let a stream whose text has ended rest in its place, or go."""
        stream.finish_reason = finish_reason
        if finish_reason == "failed" or not stream.retain or stream.slot is None:
            self.free(stream)

    def free(self, stream: EngineStream) -> None:
        """Let a stream go; its row is empty again."""
        if stream in self.waiting:
            self.waiting.remove(stream)
        if stream.slot is not None:
            self.held.remove(stream)
            # What a broken pass left behind may be no numbers, which no mask hides.
            stream.slot.close(wipe=stream.error is not None)
            stream.slot = None

    def _number(self, stream: EngineStream) -> None:
        self._num_streams += 1
        stream.number = self._num_streams

    def _hold(self, stream: EngineStream, slot: Slot) -> None:
        stream.slot = slot
        self.held.append(stream)
