"""Know the messages of sessions by digests of their roles and texts, and count their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b

from streamingllm.gateway.token_count import message_tokens
from streamingllm.sessions.message_json import message_from_json
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.transcript import Message

_TABLES = """
CREATE TABLE IF NOT EXISTS gateway_seen (
    session TEXT NOT NULL,
    row INTEGER NOT NULL,
    digest BLOB NOT NULL,
    message TEXT NOT NULL,
    num_tokens INTEGER NOT NULL,
    PRIMARY KEY (session, row)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS gateway_seen_by_digest ON gateway_seen (session, digest, row);
"""
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Told:
    """Hold a message of a request: its role and its text."""

    role: str
    text: str

    @property
    def digest(self) -> bytes:
        """Digest of role and text; clients strip answers."""
        told = f"{self.role}\n{self.text.strip()}".encode(errors="surrogatepass")
        return blake2b(told, digest_size=_DIGEST_BYTES).digest()

    @property
    def message(self) -> Message:
        """The message of a transcript, under a new id; an answer as clients send it back."""
        is_answer = self.role == "assistant"
        return Message.of_text(self.role, self.text.strip() if is_answer else self.text)


class SeenMessages:
    """Follow the messages of a store, within its transactions; a `MessageIndex`.

    Rows of a session grow with the numbers of its messages.

    Args:
        store: of sessions; the table is created in its database.
        count_tokens: of a text.
    """

    def __init__(self, store: SqliteStore, count_tokens: Callable[[str], int]) -> None:
        self._database = store.database
        self._count_tokens = count_tokens
        with store.transaction():
            self._database.connection.execute(_TABLES)
        store.indexes.append(self)

    def add(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Append messages; see `MessageIndex`."""
        for row, body in rows:
            message = message_from_json(body)
            told = Told(message.role, message.text)
            size = message_tokens(self._count_tokens, told.text)
            self._database.run(
                "INSERT INTO gateway_seen VALUES (?, ?, ?, ?, ?)",
                *(session_id, row, told.digest, message.id, size),
            )

    def remove(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Forget messages; see `MessageIndex`."""
        for row, _ in rows:
            delete = "DELETE FROM gateway_seen WHERE session = ? AND row = ?"
            self._database.run(delete, session_id, row)

    def rows(self, session_id: str, told: Told, limit: int) -> list[int]:
        """Return the rows of messages of this role and text, the newest first."""
        find = (
            "SELECT row FROM gateway_seen WHERE session = ? AND digest = ? "
            "ORDER BY row DESC LIMIT ?"
        )
        return [row for (row,) in self._database.run(find, session_id, told.digest, limit)]

    def last_digests(self, session_id: str, count: int) -> list[bytes]:
        """Return the digests of the last messages, the oldest first."""
        find = "SELECT digest FROM gateway_seen WHERE session = ? ORDER BY row DESC LIMIT ?"
        return [digest for (digest,) in self._database.run(find, session_id, count)][::-1]

    def at(self, session_id: str, number: int) -> tuple[int, str] | None:
        """Return row and id of message 0, 1, ...; None if there is none of that number."""
        find = (
            "SELECT row, message FROM gateway_seen WHERE session = ? ORDER BY row LIMIT 1 OFFSET ?"
        )
        found = self._database.run(find, session_id, number)
        return (found[0][0], found[0][1]) if found else None

    def num_tokens(self, session_id: str, before_row: int | None = None) -> int:
        """Return the tokens of all messages, or of those before a row."""
        total = "SELECT coalesce(sum(num_tokens), 0) FROM gateway_seen WHERE session = ?"
        values: tuple[str | int, ...] = (session_id,)
        if before_row is not None:
            total, values = f"{total} AND row < ?", (session_id, before_row)
        ((count,),) = self._database.run(total, *values)
        return int(count)

    def sizes(self, session_id: str) -> list[int]:
        """Return the tokens of each message."""
        find = "SELECT num_tokens FROM gateway_seen WHERE session = ? ORDER BY row"
        return [size for (size,) in self._database.run(find, session_id)]
