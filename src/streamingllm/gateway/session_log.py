"""Keep the sessions of all clients: their messages, the words in them, and a memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamingllm.errors import SessionNotFoundError
from streamingllm.gateway.seen_messages import SeenMessages
from streamingllm.gateway.token_count import estimated_tokens, message_tokens
from streamingllm.memory.encoder import Encoder
from streamingllm.memory.session_memory import SessionMemory
from streamingllm.sessions.session import session_key
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import SessionSummary, TurnCommit
from streamingllm.sessions.transcript import Message

_SYSTEM_PROMPT, _NUM_FORGOTTEN = "system_prompt", "num_forgotten"


@dataclass(frozen=True)
class SessionSettings:
    """Hold what a session's last turn sent, except for its messages.

    Args:
        system_prompt: sent with each request; no message of the transcript.
        num_forgotten: first messages that the last turn left out.
    """

    system_prompt: str = ""
    num_forgotten: int = 0

    @staticmethod
    def of(summary: SessionSummary) -> SessionSettings:
        """Return those of a stored session."""
        stored = summary.settings
        return SessionSettings(stored.get(_SYSTEM_PROMPT, ""), stored.get(_NUM_FORGOTTEN, 0))

    @property
    def as_json(self) -> dict[str, Any]:
        """Fields as they are stored."""
        return {_SYSTEM_PROMPT: self.system_prompt, _NUM_FORGOTTEN: self.num_forgotten}


class RowMemory(SessionMemory):
    """Remember messages by their rows, because tokens of another server have no positions here."""

    def position_of(self, row: int, message: Message) -> int:
        """Return the row."""
        return row


class SessionLog:
    """Hold a store of sessions with what follows its messages.

    Sessions have transcripts and no token ids. Tokens are those of `count_tokens`. Methods may be
    called from any thread.

    Args:
        path: of the database, which is created if it is missing.
        count_tokens: of a text.
        encoder: see `Memory`.

    Raises:
        SnapshotError: the file cannot be opened, or is no database of this release.
    """

    def __init__(
        self,
        path: Path,
        count_tokens: Callable[[str], int] = estimated_tokens,
        encoder: Encoder | None = None,
    ) -> None:
        self.store = SqliteStore(path)
        self.count_tokens = count_tokens
        try:
            self.seen = SeenMessages(self.store, count_tokens)
            self.memory = RowMemory(self.store, encoder)
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make all changes in the body durable together."""
        return self.store.transaction()

    def reading(self) -> AbstractContextManager[None]:
        """Read one state of the database."""
        return self.store.database.reading()

    def summary(self, owner: str, session_id: str) -> SessionSummary:
        """Return a session without its messages.

        Raises:
            SessionNotFoundError: the owner has none of that id.
        """
        try:
            return self.store.summary(session_key(owner, session_id), owner)
        except SessionNotFoundError as error:
            raise SessionNotFoundError(
                f"session_id={session_id[:128]!r} is not there; list the sessions"
            ) from error

    def find(self, owner: str, session_id: str) -> SessionSummary | None:
        """Return a session without its messages; None if the owner has none of that id."""
        try:
            return self.summary(owner, session_id)
        except SessionNotFoundError:
            return None

    def num_pinned_tokens(self, system_prompt: str) -> int:
        """Return the tokens of a system prompt; 0 without one."""
        return message_tokens(self.count_tokens, system_prompt) if system_prompt else 0

    def commit(
        self,
        owner: str,
        session_id: str,
        num_kept: int,
        messages: Sequence[Message],
        settings: SessionSettings,
        *,
        metadata: Mapping[str, Any] | None = None,
        group: str = "",
    ) -> None:
        """Keep the first messages of a session and append others; a missing one is created.

        Args:
            owner: of the session.
            session_id: among those of the owner.
            num_kept: messages that stay.
            messages: to append.
            settings: from now on.
            metadata: of a session that is created.
            group: chat of a session that is created.
        """
        key = session_key(owner, session_id)
        with self.transaction():
            stored = self.find(owner, session_id)
            if stored is None:
                epoch = self.store.create(key, metadata, owner=owner, group=group)
            else:
                epoch = stored.epoch
            turn = TurnCommit(num_kept, 0, tuple(messages), settings=settings.as_json)
            self.store.commit_turn(key, epoch, turn)
