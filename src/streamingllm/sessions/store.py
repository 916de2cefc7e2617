"""Define a store of sessions: messages and token ids of each turn, and the newest snapshot."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
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
        settings: of the session from now on; None leaves them.
        num_pinned_tokens: of the session from now on; None leaves it.
    """

    num_messages_before: int
    num_tokens_before: int
    messages: tuple[Message, ...] = ()
    token_ids: array[int] = field(default_factory=lambda: array("I"))
    settings: Mapping[str, Any] | None = None
    num_pinned_tokens: int | None = None


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
        metadata: JSON-able facts of its makers.
        owner: whose it is; others cannot see it.
        group: id of a chat whose branches are sessions.
        settings: JSON-able facts that its turns depend on.
        num_pinned_tokens: length of its pinned prefix.
        parent_id: session that it is a branch of.
        num_shared_messages: first messages that it shares with that.
    """

    id: str
    epoch: int
    num_messages: int
    num_tokens: int
    created_seconds: float
    updated_seconds: float
    metadata: Mapping[str, Any]
    owner: str = ""
    group: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    num_pinned_tokens: int = 0
    parent_id: str | None = None
    num_shared_messages: int = 0

    @property
    def cursor(self) -> str:
        """Place in a list after which it goes on."""
        return f"{self.updated_seconds!r}/{self.id}"


@dataclass(frozen=True)
class SnapshotRecord:
    """Describe a snapshot that is stored.

    Args:
        session_id: of its session.
        num_tokens: that the stream had seen.
        nbytes: of its content.
    """

    session_id: str
    num_tokens: int
    nbytes: int


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

    def create(
        self,
        session_id: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        owner: str = "",
        group: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> int:
        """Create an empty session and return its epoch.

        Raises:
            SessionConflictError: there is one of that id.
        """
        ...

    def get(self, session_id: str, owner: str | None = None) -> StoredSession:
        """Return a session; of an owner, if one is given.

        Raises:
            SessionNotFoundError: there is none of that id, or it is another owner's.
            SnapshotError: it is damaged.
        """
        ...

    def summary(self, session_id: str, owner: str | None = None) -> SessionSummary:
        """Return a session without its messages; see `get`."""
        ...

    def list(
        self,
        owner: str | None = None,
        *,
        limit: int = 100,
        after: str | None = None,
        query: str | None = None,
    ) -> Sequence[SessionSummary]:
        """Return the sessions that changed last, the newest first.

        Args:
            owner: of the sessions; None for all.
            limit: how many.
            after: cursor of the last one that is known.
            query: words, all of which a message has; the last one may be the beginning of a word.
        """
        ...

    def branches(self, session_id: str, owner: str) -> Sequence[SessionSummary]:
        """Return the sessions that share messages with one: all branches of its family."""
        ...

    def find_prefix(
        self, owner: str, digests: Sequence[bytes], group: str = ""
    ) -> Sequence[tuple[str, int]]:
        """Return the sessions that begin with the longest known part of a history.

        Args:
            owner: of the sessions.
            digests: of the history, by `history_digests`.
            group: of the sessions.

        Returns:
            ids, and the length of the part in messages; those that changed last first.
        """
        ...

    def fork(
        self,
        session_id: str,
        owner: str,
        new_id: str,
        num_messages: int,
        num_tokens: int,
        *,
        settings: Mapping[str, Any],
    ) -> int:
        """Create a session with the first messages and token ids of another; return its epoch.

        Raises:
            SessionConflictError: there is one of the new id.
            SessionNotFoundError: there is none to fork.
        """
        ...

    def update_metadata(self, session_id: str, owner: str, metadata: Mapping[str, Any]) -> None:
        """Replace the metadata of a session; its epoch stays.

        Raises:
            SessionNotFoundError: there is none of that id, or it is another owner's.
        """
        ...

    def delete(self, session_id: str, owner: str | None = None) -> None:
        """Delete a session, with its snapshot and its responses.

        Raises:
            SessionNotFoundError: there is none of that id, or it is another owner's.
        """
        ...

    def expire(self, now: float, max_age_seconds: float) -> int:
        """Delete the sessions that have not changed for so long; return how many."""
        ...

    def count(self) -> int:
        """Return the number of sessions."""
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

    def raise_epoch(self, session_id: str) -> int:
        """Let writers that know the epoch of a session be refused; return the new one.

        Raises:
            SessionNotFoundError: there is none of that id.
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

    def drop_snapshot(self, session_id: str) -> None:
        """Delete the snapshot of a session, if there is one."""
        ...

    def snapshot_record(self, session_id: str) -> SnapshotRecord | None:
        """Describe the snapshot of a session; None if there is none."""
        ...

    def snapshots(self) -> Sequence[SnapshotRecord]:
        """Return what snapshots there are, the oldest first."""
        ...
