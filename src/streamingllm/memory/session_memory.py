"""A memory of the sessions of a store, which puts back what left their windows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from streamingllm.errors import InputError
from streamingllm.memory.encoder import Encoder
from streamingllm.memory.memory import Memory
from streamingllm.memory.recaller import MemoryRecaller
from streamingllm.sessions.message_json import message_from_json
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.transcript import Message

_HIDDEN_ROLES = ("system", "developer")  # they are pinned


class SessionMemory(MemoryRecaller):
    """Follow the messages of a store, and recall them; a `MessageIndex` and a `Recaller`.

    A message is appended to the memory and deleted from it in the transaction of its turn. The
    memory is in the database of the store.

    Args:
        store: of sessions; the memory becomes one of its indexes and reads what it holds already.
        encoder: see `Memory`.
    """

    def __init__(self, store: SqliteStore, encoder: Encoder | None = None) -> None:
        super().__init__(Memory(store.database, encoder=encoder))
        self._store = store
        self._removed_seconds: dict[str, float] = {}  # of messages removed in this transaction
        with store.transaction():
            self._read_old_sessions()
        store.indexes.append(self)

    @staticmethod
    def is_in(store: SqliteStore) -> bool:
        """Tell whether a store has a memory, which then has to follow its messages."""
        find = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'memory_sessions'"
        with store.database.reading():
            return bool(store.database.run(find))

    def add(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Append messages; see `MessageIndex`."""
        for row, message in _messages(rows):
            if not message.text or message.role in _HIDDEN_ROLES:
                continue
            with contextlib.suppress(InputError):  # an id that a client has used twice
                self.memory.append(
                    session_id,
                    message.role,
                    message.text,
                    message_id=message.id,
                    position=self.position_of(row, message),
                    speaker=message.name or "",
                    time=self._said_seconds(message.id),
                    source="session",
                )

    def remove(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Forget messages; see `MessageIndex`."""
        gone = [message.id for _, message in _messages(rows)]
        for message_id in gone:
            if (seconds := self.memory.seconds_of(message_id)) is not None:
                self._removed_seconds[message_id] = seconds
        self._store.database.after_commit(self._removed_seconds.clear)
        if self.memory.forget(session_id, gone) and not self.memory.messages(session_id, 1):
            self.memory.forget_session(session_id)

    def position_of(self, row: int, message: Message) -> int:
        """Return the number by which a search leaves a message out: its stream position."""
        return message.first

    def _said_seconds(self, message_id: str) -> float | None:
        """Return when a message was said that moves within its session or is copied to another."""
        if message_id in self._removed_seconds:
            return self._removed_seconds[message_id]
        return self.memory.seconds_of(message_id)

    def _read_old_sessions(self) -> None:
        find = (
            "SELECT session, row, body FROM messages "
            "WHERE session NOT IN (SELECT id FROM memory_sessions) ORDER BY session, number"
        )
        for session_id, row, body in self._store.database.run(find):
            self.add(session_id, [(row, body)])


def _messages(rows: Iterable[tuple[int, str]]) -> list[tuple[int, Message]]:
    """Return rows and their messages; a damaged one is left out, and is found when it is read."""
    found = []
    for row, body in rows:
        with contextlib.suppress(InputError):
            found.append((row, message_from_json(body)))
    return found
