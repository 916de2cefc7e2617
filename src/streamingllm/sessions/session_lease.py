"""Define leases: of several processes on one store, one serves a session at a time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

DEFAULT_LEASE_SECONDS = 6.0


@dataclass(frozen=True)
class JournalledTurn:
    """Say where a turn began, so that another process can repeat it from there.

    Args:
        turn_id: of the turn.
        session_id: that it goes on with.
        num_messages: of the session when it began.
        num_kept: first messages that stay.
        num_new: last messages of the request that are new.
        is_edit: whether messages of the session are replaced by others.
    """

    turn_id: str
    session_id: str
    num_messages: int
    num_kept: int
    num_new: int
    is_edit: bool = False


class SessionLeases(Protocol):
    """Let one holder at a time write a session, with the epoch of the store as a fence.

    Taking a lease raises the session's epoch. So whatever an earlier holder still commits names an
    old epoch, and the store refuses it. Methods may be called from any thread.

    Attributes:
        holder: name of this process among those that share the store.
        lease_seconds: a turn of a holder that does not renew its leases bars others for so long.
    """

    holder: str
    lease_seconds: float

    def hold(self, session_id: str, dead_holders: Collection[str] = ()) -> int:
        """Take the lease of a session unless this holder has it; return the session's epoch.

        Args:
            session_id: of the session.
            dead_holders: holders whose turns bar nobody.

        Raises:
            SessionNotFoundError: there is no session of that id.
            SessionBusyError: another holder runs a turn of it.
        """
        ...

    def begin_turn(
        self, session_id: str, epoch: int, turn: JournalledTurn | None, *, is_running: bool = True
    ) -> None:
        """Compare the lease and the epoch, journal a turn, and bar others until its end.

        Args:
            session_id: of the session.
            epoch: that the holder knows.
            turn: to journal; None for one that is not repeated.
            is_running: whether others are barred.

        Raises:
            SessionNotFoundError: there is no session of that id.
            StaleLeaseError: another holder has the lease, or has changed the session.
        """
        ...

    def end_turn(self, session_id: str) -> None:
        """Let others take the lease."""
        ...

    def find_turn(self, turn_id: str) -> JournalledTurn | None:
        """Return where a turn began; None if it is not journalled."""
        ...

    def renew(self) -> None:
        """Bar others for the turns that run here, as long again."""
        ...
