"""Keep responses next to the sessions that they answer in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from streamingllm.checks import check_integer
from streamingllm.errors import ResponseNotFoundError, SessionConflictError
from streamingllm.sessions.database import Database

_COLUMNS = (
    "id, owner, session, message, status, body, input_items, created_seconds, expires_seconds"
)


@dataclass(frozen=True)
class ResponseRecord:
    """Describe a response that a client can fetch again or go on from.

    Args:
        id: of the response, among those of all owners.
        owner: whose it is; others cannot see it.
        session_id: of the session that it answers in.
        message_id: last message of the answer; None while it runs.
        status: as its API names it.
        body: JSON of the response.
        input_items: JSON of what it answers.
        created_seconds: since 1970.
        expires_seconds: since 1970; from then on it is not found.
    """

    id: str
    owner: str
    session_id: str
    message_id: str | None
    status: str
    body: str
    input_items: str
    created_seconds: float
    expires_seconds: float


class ResponseStore:
    """Keep a bounded number of responses, and the events of those that can be resumed.

    Calls within `SqlStore.transaction` become durable together with the turn. Methods may be
    called from any thread.

    Args:
        database: of the sessions.
        max_responses: after which the oldest response is deleted.

    Raises:
        ConfigError: `max_responses` is less than 1.
    """

    def __init__(self, database: Database, *, max_responses: int = 10_000) -> None:
        check_integer("max_responses", max_responses, 1)
        self._database = database
        self._max_responses = max_responses

    def put(self, record: ResponseRecord) -> None:
        """Add or replace a response; when there are too many, delete the oldest.

        Raises:
            SessionConflictError: another owner has a response of that id.
        """
        changed = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[2:])
        with self._database.transaction():
            written = self._database.run(
                f"INSERT INTO responses ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                f"ON CONFLICT (id) DO UPDATE SET {changed} WHERE responses.owner = excluded.owner "
                "RETURNING 1",
                *astuple(record),
            )
            if not written:
                raise SessionConflictError(f"response_id={record.id!r} exists; use another id")
            oldest = (
                "row <= (SELECT row FROM responses ORDER BY row DESC LIMIT 1 OFFSET "
                f"{self._max_responses})"
            )
            self._delete(oldest)

    def get(self, owner: str, response_id: str) -> ResponseRecord:
        """Return a response of an owner.

        Raises:
            ResponseNotFoundError: the owner has none of that id, or it has expired.
        """
        find = (
            f"SELECT {_COLUMNS} FROM responses WHERE id = ? AND owner = ? AND expires_seconds > ?"
        )
        with self._database.reading():
            found = self._database.run(find, response_id, owner, time.time())
        if not found:
            raise _not_found(response_id)
        return ResponseRecord(*found[0])

    def session_of(self, response_id: str) -> str | None:
        """Return the session of a response of any owner; None if it is not stored."""
        find = "SELECT session FROM responses WHERE id = ?"
        with self._database.reading():
            found = self._database.run(find, response_id)
        return str(found[0][0]) if found else None

    def delete(self, owner: str, response_id: str) -> None:
        """Delete a response of an owner, with its events.

        Raises:
            ResponseNotFoundError: the owner has none of that id.
        """
        with self._database.transaction():
            if not self._delete("id = ? AND owner = ?", response_id, owner):
                raise _not_found(response_id)

    def delete_of_session(self, owner: str, session_id: str) -> int:
        """Delete the responses in a session of an owner; return how many."""
        with self._database.transaction():
            return self._delete("session = ? AND owner = ?", session_id, owner)

    def erase(self, owner: str, session_id: str, words: Iterable[str]) -> int:
        """Delete the responses in a session that hold one of some words; return how many.

        Args:
            owner: of the session.
            session_id: whose responses are searched.
            words: texts and ids of messages, which recalled copies name.
        """
        written = [
            json.dumps(word, ensure_ascii=is_ascii)[1:-1]
            for word in words
            if word
            for is_ascii in (False, True)
        ]
        condition = (
            f"owner = ? AND session = ? AND EXISTS (SELECT 1 FROM {self._database.words_of_json} "
            "WHERE instr(body, word.value) > 0 OR instr(input_items, word.value) > 0 OR EXISTS "
            "(SELECT 1 FROM response_events WHERE response = responses.id AND "
            "instr(event, word.value) > 0))"
        )
        with self._database.transaction():
            return self._delete(condition, owner, session_id, json.dumps(written))

    def expire(self, now: float) -> int:
        """Delete the responses that have expired; return how many."""
        with self._database.transaction():
            return self._delete("expires_seconds <= ?", now)

    def count(self) -> int:
        """Return the number of responses."""
        with self._database.reading():
            ((count,),) = self._database.run("SELECT count(*) FROM responses")
        return int(count)

    def append_events(self, response_id: str, first_number: int, events: Sequence[str]) -> None:
        """Append events of a response; one of the same number is replaced.

        Raises:
            ResponseNotFoundError: there is no response of that id.
        """
        with self._database.transaction():
            if not self._database.run("SELECT 1 FROM responses WHERE id = ?", response_id):
                raise _not_found(response_id)
            for number, event in enumerate(events, start=first_number):
                self._database.run(
                    "INSERT INTO response_events VALUES (?, ?, ?) "
                    "ON CONFLICT (response, number) DO UPDATE SET event = excluded.event",
                    response_id,
                    number,
                    event,
                )

    def events(self, response_id: str, after: int) -> list[tuple[int, str]]:
        """Return the events of a response after a number, each with its own."""
        find = (
            "SELECT number, event FROM response_events WHERE response = ? AND number > ? "
            "ORDER BY number"
        )
        with self._database.reading():
            found = self._database.run(find, response_id, after)
        return [(number, event) for number, event in found]

    def _delete(self, condition: str, *values: object) -> int:
        return delete_responses(self._database, condition, *values)


def delete_responses(database: Database, condition: str, *values: object) -> int:
    """Delete the responses that a condition of SQL holds for, with their events.

    Returns:
        how many there were.
    """
    gone = database.run(f"DELETE FROM responses WHERE {condition} RETURNING id", *values)
    for (response_id,) in gone:
        database.run("DELETE FROM response_events WHERE response = ?", response_id)
    if gone:
        database.wipe_log()
    return len(gone)


def _not_found(response_id: str) -> ResponseNotFoundError:
    return ResponseNotFoundError(
        f"response_id={response_id!r} is not stored; name one that is neither deleted nor expired"
    )
