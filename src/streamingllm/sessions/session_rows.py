"""Rows of messages and token ids, each with a digest of itself and all before it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any

from streamingllm.errors import InputError
from streamingllm.sessions.database import SqlConnection
from streamingllm.sessions.history_digest import next_digest
from streamingllm.sessions.message_index import MessageIndex
from streamingllm.sessions.message_json import message_from_json, message_to_json
from streamingllm.sessions.token_log import ids_from_bytes, ids_to_bytes
from streamingllm.sessions.transcript import Message

CHUNK_TOKENS = 4096

Rows = list[tuple[Any, ...]]


class SessionRows:
    """Read, append and take back the rows of one session.

    Args:
        database: within a transaction.
        session_id: whose rows they are.
        indexes: of the messages.
        messages: table of the messages; a migration reads another one.
    """

    def __init__(
        self,
        database: SqlConnection,
        session_id: str,
        indexes: Sequence[MessageIndex] = (),
        *,
        messages: str = "messages",
    ) -> None:
        self._database = database
        self._indexes = indexes
        self._messages = messages
        self._id = session_id
        self._first_digest = digest_of(b"", session_id.encode())

    def messages(self) -> Iterator[Message]:
        """Yield all messages.

        Raises:
            InputError: a digest does not fit.
        """
        digest = self._first_digest
        for body, expected in self.run(
            f"SELECT body, digest FROM {self._messages} WHERE session = ? ORDER BY number"
        ):
            digest = _checked(digest, body.encode(), expected)
            yield message_from_json(body)

    def token_ids(self) -> Iterator[array[int]]:
        """Yield all token ids in chunks.

        Raises:
            InputError: a digest does not fit.
        """
        digest = self._first_digest
        for ids, expected in self.run(
            "SELECT ids, digest FROM tokens WHERE session = ? ORDER BY first"
        ):
            digest = _checked(digest, ids, expected)
            yield ids_from_bytes(ids)

    def append_messages(self, number: int, messages: Iterable[Message], scope: bytes) -> None:
        """Append messages, the first of which is that of a number.

        Args:
            number: of the first.
            messages: to append.
            scope: of the history, see `scope_of`.
        """
        digest = self._last_digest("messages", "number")
        history = self._last_history()
        for at, message in enumerate(messages, start=number):
            body = message_to_json(message)
            digest = digest_of(digest, body.encode())
            key = b""  # the pinned system prompt is no part of a history
            if at > 0 or message.role != "system":
                history = next_digest(history, message)
                key = digest_of(scope, history)
            added = self.run(
                "INSERT INTO messages (session, number, body, digest, history_key, history) "
                "VALUES (?, ?, ?, ?, ?, ?) RETURNING row, body",
                *(at, body, digest, key, history),
            )
            for index in self._indexes:
                index.add(self._id, added)

    def append_token_ids(self, first: int, ids: array[int]) -> None:
        """Append token ids, the first of which is that of a stream position."""
        digest = self._last_digest("tokens", "first")
        for start in range(0, len(ids), CHUNK_TOKENS):
            packed = ids_to_bytes(ids[start : start + CHUNK_TOKENS])
            digest = digest_of(digest, packed)
            self.run("INSERT INTO tokens VALUES (?, ?, ?, ?)", first + start, packed, digest)

    def copy_from(
        self, other: SessionRows, num_messages: int, num_tokens: int, scope: bytes
    ) -> None:
        """Copy the first messages and token ids of another session into an empty one."""
        self.append_messages(0, islice(other.messages(), num_messages), scope)
        first = 0
        for ids in other.token_ids():
            self.append_token_ids(first, ids[: max(0, num_tokens - first)])
            first += len(ids)

    def take_back(self, num_messages: int, num_tokens: int) -> None:
        """Keep the first messages and token ids."""
        gone = "DELETE FROM messages WHERE session = ? AND number >= ? RETURNING row, body"
        removed = self.run(gone, num_messages)
        for index in self._indexes:
            index.remove(self._id, removed)
        self.run("DELETE FROM tokens WHERE session = ? AND first >= ?", num_tokens)
        last = "SELECT first, ids FROM tokens WHERE session = ? ORDER BY first DESC LIMIT 1"
        for first, packed in self.run(last):
            ids = ids_from_bytes(packed)
            if first + len(ids) > num_tokens:
                self.run("DELETE FROM tokens WHERE session = ? AND first = ?", first)
                self.append_token_ids(first, ids[: num_tokens - first])

    def run(self, statement: str, *values: Any) -> Rows:
        """Run a statement whose first value is the session's id."""
        return [*self._database.execute(statement, (self._id, *values))]

    def _last_history(self) -> bytes:
        rows = self.run(
            "SELECT history FROM messages WHERE session = ? ORDER BY number DESC LIMIT 1"
        )
        return bytes(rows[0][0]) if rows else b""

    def _last_digest(self, table: str, order: str) -> bytes:
        rows = self.run(
            f"SELECT digest FROM {table} WHERE session = ? ORDER BY {order} DESC LIMIT 1"
        )
        return bytes(rows[0][0]) if rows else self._first_digest


def digest_of(*contents: bytes) -> bytes:
    """Return 16 bytes that tell contents apart."""
    digest = blake2b(digest_size=16)
    for content in contents:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def scope_of(owner: str, group: str) -> bytes:
    """Return what keeps histories of other owners and chats apart."""
    return digest_of(owner.encode(), group.encode())


def _checked(digest: bytes, content: bytes, expected: bytes) -> bytes:
    if digest_of(digest, content) != expected:
        raise InputError("a checksum does not fit")
    return expected
