"""Let one process of several serve a session: its lease held, its copy in memory up to date."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from streamingllm.errors import SessionBusyError, StreamingLLMError
from streamingllm.sessions.periodic import Periodic
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_lease import JournalledTurn, SessionLeases
from streamingllm.sessions.turn_attempt import current_attempt

_POLL_SECONDS = 0.05
_MAX_WAIT_SECONDS = 60.0
_RENEWALS = 3  # in the time that a lease lasts
_log = logging.getLogger("streamingllm.sessions")


async def _nothing(_: Session) -> None:
    """Do nothing."""


class SessionOwnership(Periodic):
    """Hold leases of the sessions in memory.

    Args:
        leases: of all processes that share the store.

    Attributes:
        on_lost: drops the stream of a session that another process has taken over.
        on_loaded: notes what other processes have written of a session.
    """

    def __init__(self, leases: SessionLeases) -> None:
        self._leases = leases
        self.on_lost: Callable[[Session], Awaitable[None]] = _nothing
        self.on_loaded: Callable[[Session], Awaitable[None]] = _nothing

    @property
    def holder(self) -> str:
        """Name of this process among those that share the store."""
        return self._leases.holder

    async def hold(self, session_key: str) -> int:
        """Take the lease of a session unless it is here; return the session's epoch.

        Turns that run elsewhere may end first.

        Raises:
            SessionBusyError: another process has run a turn of it for a minute.
            SessionNotFoundError: there is no session of that id.
        """
        attempt = current_attempt()
        dead_holders = frozenset[str]() if attempt is None else attempt.dead_holders
        until = time.monotonic() + _MAX_WAIT_SECONDS
        while True:
            try:
                return await asyncio.to_thread(self._leases.hold, session_key, dead_holders)
            except SessionBusyError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_POLL_SECONDS)

    async def is_current(self, session: Session) -> bool:
        """Tell whether a session in memory is as it is stored; if not, drop its stream.

        Raises:
            SessionBusyError: see `hold`.
            SessionNotFoundError: another process has deleted it.
        """
        try:
            if await self.hold(session.key) == session.epoch:
                return True
            async with session.lock:  # a turn that runs here may have committed meanwhile
                if session.is_deleted:
                    return False
                if await self.hold(session.key) == session.epoch:
                    return True
                await self.on_lost(session)
                return False
        except LookupError:
            async with session.lock:
                await self.on_lost(session)
            raise

    async def begin_turn(self, session: Session, turn: JournalledTurn | None) -> None:
        """Compare the lease and the epoch of a session, and journal a turn.

        Raises:
            StaleLeaseError: another process has taken it over.
        """
        if session.epoch is not None:
            await asyncio.to_thread(self._leases.begin_turn, session.key, session.epoch, turn)

    async def end_turn(self, session: Session) -> None:
        """Let other processes take the session over."""
        if session.epoch is not None:
            try:
                await asyncio.to_thread(self._leases.end_turn, session.key)
            except StreamingLLMError as error:
                _log.warning("a lease cannot be freed (%s); it ends by itself", error)

    async def journalled(self, turn_id: str) -> JournalledTurn | None:
        """Return where an earlier attempt at a turn began; None if none did."""
        return await asyncio.to_thread(self._leases.find_turn, turn_id)

    async def _run(self) -> None:
        """Renew the leases."""
        while True:
            await asyncio.sleep(self._leases.lease_seconds / _RENEWALS)
            try:
                await asyncio.to_thread(self._leases.renew)
            except StreamingLLMError as error:
                _log.warning("leases cannot be renewed (%s); retried soon", error)
