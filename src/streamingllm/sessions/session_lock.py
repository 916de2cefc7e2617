"""Lock a session for a turn or a change."""

from __future__ import annotations

import asyncio
from typing import Literal


class SessionLock(asyncio.Lock):
    """Lock a session, and tell whether anybody holds it or waits for it.

    Whoever moves idle sessions must not wait for one: the turn that holds it may wait for the slot
    that the move would free.
    """

    def __init__(self) -> None:
        super().__init__()
        self._num_wanting = 0

    @property
    def is_free(self) -> bool:
        """Return whether `acquire` would not wait."""
        return self._num_wanting == 0

    async def acquire(self) -> Literal[True]:
        """Wait until nobody else holds it."""
        self._num_wanting += 1
        try:
            return await super().acquire()
        except BaseException:
            self._num_wanting -= 1
            raise

    def release(self) -> None:
        """Let the next one have it."""
        super().release()
        self._num_wanting -= 1
