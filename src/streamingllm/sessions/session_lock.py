"""Lock a session for a turn or a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal


class SessionLock(asyncio.Lock):
    """Lock a session, and tell whether anybody holds it or waits for it.

    Whoever moves idle sessions must not wait for one: the turn that holds it may wait for the slot
    that the move would free.

    Attributes:
        on_free: called when nobody holds it or waits for it any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_free: Callable[[], None] | None = None
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
            self._want_no_more()
            raise

    def release(self) -> None:
        """Let the next one have it."""
        super().release()
        self._want_no_more()

    def _want_no_more(self) -> None:
        self._num_wanting -= 1
        if self.is_free and self.on_free is not None:
            self.on_free()
