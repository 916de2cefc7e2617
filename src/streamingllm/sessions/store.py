"""Define a store of sessions: messages and token ids of each turn, and the newest snapshot."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Message, Transcript


@dataclass(frozen=True)
class TurnCommit:
    """Describe a turn that is added to a session, and the part that it takes back before.

    Args:
        num_messages_before: messages that stay; those after them are taken back.
        num_tokens_before: token ids that stay.
        messages: to append, with their stream positions.
        token_ids: to append.
    """

    num_messages_before: int
    num_tokens_before: int
    messages: tuple[Message, ...] = ()
    token_ids: array[int] = field(default_factory=lambda: array("I"))


@dataclass(frozen=True)
class Snapshot:
    """The exact state of a stream, of a size that does not depend on its age.

    Args:
        num_tokens: that the stream had seen; later ids of the log are to be fed again.
        content: bytes, whose meaning is the writer's.
    """

    num_tokens: int
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class SessionSummary:
    """Describe a session in a list.

    Args:
        id: of the session.
        epoch: counts its commits; a writer names the one that it has read.
        num_messages: of its transcript.
        num_tokens: of its token log.
        created_seconds: since 1970, when it was created.
        updated_seconds: since 1970, when a turn was committed last.
        metadata: JSON-able facts that it was created with.
    """

    id: str
    epoch: int
    num_messages: int
    num_tokens: int
    created_seconds: float
    updated_seconds: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class StoredSession:
    """Hold a session without its snapshot.

    Args:
        summary: of it.
        transcript: its messages.
        token_log: the ids that it fed.
    """

    summary: SessionSummary
    transcript: Transcript
    token_log: TokenLog


class SessionStore(Protocol):
    """Keep sessions; a change is durable once its call has returned.

    The cost of a commit does not depend on the age of its session. Methods may be called from any
    thread.
    """

    def create(self, session_id: str, metadata: Mapping[str, Any]) -> int:
        """Create an empty session and return its epoch.

        Raises:
            SessionConflictError: there is one of that id.
        """
        ...

    def get(self, session_id: str) -> StoredSession:
        """Return a session.

        Raises:
            SessionNotFoundError: there is none of that id.
            SnapshotError: it is damaged.
        """
        ...

    def list(self, *, limit: int = 100) -> list[SessionSummary]:
        """Return the sessions that changed last, the newest first."""
        ...

    def delete(self, session_id: str) -> None:
        """Delete a session.

        Raises:
            SessionNotFoundError: there is none of that id.
        """
        ...

    def commit_turn(self, session_id: str, epoch: int, turn: TurnCommit) -> int:
        """Append a turn, whole or not at all, and return the new epoch.

        A snapshot of tokens that the turn takes back is deleted.

        Raises:
            SessionNotFoundError: there is none of that id.
            SessionConflictError: another writer has committed since this epoch.
            InputError: the turn does not fit to what is stored.
        """
        ...

    def put_snapshot(self, session_id: str, epoch: int, snapshot: Snapshot) -> None:
        """Replace the snapshot of a session.

        Raises:
            SessionNotFoundError: there is none of that id.
            SessionConflictError: another writer has committed since this epoch.
            InputError: the snapshot has seen more tokens than are stored.
        """
        ...

    def get_snapshot(self, session_id: str) -> Snapshot | None:
        """Return the newest snapshot; None if there is none.

        Raises:
            SessionNotFoundError: there is no session of that id.
            SnapshotError: it is damaged.
        """
        ...
