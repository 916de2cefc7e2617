"""Know which messages of a session a memory has, by digests of their roles and texts."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import apsw

_TABLE = """
CREATE TABLE IF NOT EXISTS gateway_messages (
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    digest BLOB NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (session, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS gateway_messages_by_digest ON gateway_messages (session, digest, number);
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


class SeenMessages:
    """Number the messages of sessions, within transactions.

    Args:
        database: of the memory; the table is created.
    """

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        database.execute(_TABLE)

    def add(self, session: str, told: Told, message_id: str) -> int:
        """Append a message and return its number, which is above all others of its session."""
        find = "SELECT coalesce(max(number) + 1, 0) FROM gateway_messages WHERE session = ?"
        ((number,),) = self._database.execute(find, (session,))
        self._database.execute(
            "INSERT INTO gateway_messages VALUES (?, ?, ?, ?)",
            (session, number, told.digest, message_id),
        )
        return int(number)

    def numbers(self, session: str, told: Told, limit: int) -> list[int]:
        """Return the numbers of messages of this role and text, the newest first."""
        find = (
            "SELECT number FROM gateway_messages WHERE session = ? AND digest = ? "
            "ORDER BY number DESC LIMIT ?"
        )
        return [row[0] for row in self._database.execute(find, (session, told.digest, limit))]

    def last(self, session: str, count: int) -> list[tuple[bytes, str]]:
        """Return digests and ids of the last messages, the oldest first."""
        find = (
            "SELECT digest, message FROM gateway_messages WHERE session = ? "
            "ORDER BY number DESC LIMIT ?"
        )
        return [(row[0], row[1]) for row in self._database.execute(find, (session, count))][::-1]

    def remove(self, session: str, message_id: str) -> None:
        """Delete a message, if it is there."""
        self._database.execute(
            "DELETE FROM gateway_messages WHERE session = ? AND message = ?", (session, message_id)
        )

    def remove_session(self, session: str) -> None:
        """Delete all messages of a session."""
        self._database.execute("DELETE FROM gateway_messages WHERE session = ?", (session,))
