"""States of idle sessions in memory, under a bound."""

from __future__ import annotations

from collections import OrderedDict

from streamingllm.engine import StreamState
from streamingllm.sessions.session import Session, StreamPlace


class HostTier:
    """Count the sessions whose state is on the host, and its bytes.

    Args:
        max_bytes: bound on all states.

    Attributes:
        sessions: by key, the one that came first at the beginning.
        nbytes: of all states, and what is reserved.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.nbytes = 0

    def has_room(self, num_bytes: int) -> bool:
        """Return whether that many bytes fit."""
        return self.nbytes + num_bytes <= self._max_bytes

    def put(self, session: Session, place: StreamPlace, state: StreamState) -> bool:
        """Take a state in; tell whether there was room."""
        if not self.has_room(state.nbytes):
            return False
        place.state = state
        self.sessions[session.key] = session
        self.nbytes += state.nbytes
        return True

    def leave(self, session: Session, place: StreamPlace) -> None:
        """Let go of a state, if there is one."""
        if self.sessions.pop(session.key, None) is not None and place.state is not None:
            self.nbytes -= place.state.nbytes
        place.state = None
