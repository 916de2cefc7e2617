"""Slots of the engine, lent to turns: fair among owners, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from streamingllm.errors import CapacityError


class SlotQueue:
    """Lend an engine's slots to turns; owners who wait take turns.

    Args:
        num_slots: of the engine.
        max_waiting: turns that may wait.
        free_one: frees a slot of an idle session; tells whether there was one.
    """

    def __init__(
        self, num_slots: int, max_waiting: int, free_one: Callable[[], Awaitable[bool]]
    ) -> None:
        self.num_slots = num_slots
        self.num_free = num_slots
        self._max_waiting = max_waiting
        self._free_one = free_one
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def num_waiting(self) -> int:
        """Turns that wait."""
        return sum(map(len, self._queues.values()))

    def check_capacity(self) -> None:
        """Refuse a turn that could not even wait.

        Raises:
            CapacityError: the queue is full.
        """
        if self.num_waiting >= self._max_waiting:
            raise CapacityError(
                f"The queue is full: max_waiting={self._max_waiting} turns wait for "
                f"{self.num_slots} slots; retry later"
            )

    async def acquire(self, owner: str) -> None:
        """Take a slot; wait if the running turns have them all.

        Raises:
            CapacityError: too many turns wait.
        """
        if not self._queues and await self._take():
            return
        self.check_capacity()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(owner, deque()).append(ready)
        try:
            await self.serve()
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self.release()
                await self.serve()
            else:
                self._forget(owner, ready)
            raise

    def release(self) -> None:
        """Give a slot back."""
        self.num_free += 1
        assert self.num_free <= self.num_slots

    def serve_soon(self) -> None:
        """Serve once whoever calls this has gone on."""
        if self._queues:
            task = asyncio.get_running_loop().create_task(self.serve())
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def serve(self) -> None:
        """Lend free slots, and those of idle sessions, to who waits."""
        while self._queues:
            owner = next(iter(self._queues))
            ready = self._queues[owner][0]
            if not await self._take():
                return
            if ready.done():  # served or cancelled while a slot was freed
                self.release()
                self._forget(owner, ready)
                continue
            self._forget(owner, ready)
            if owner in self._queues:  # the owner's next turn waits behind those of others
                self._queues[owner] = self._queues.pop(owner)
            ready.set_result(None)

    async def _take(self) -> bool:
        while not self.num_free:
            if not await self._free_one():
                return False
        self.num_free -= 1
        return True

    def _forget(self, owner: str, ready: asyncio.Future[None]) -> None:
        queue = self._queues.get(owner)
        if queue is None:
            return
        self._queues[owner] = deque(other for other in queue if other is not ready)
        if not self._queues[owner]:
            del self._queues[owner]
