"""Rows that describe sessions, each with a digest of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from streamingllm.errors import InputError
from streamingllm.sessions.database import SqlConnection
from streamingllm.sessions.session_rows import digest_of
from streamingllm.sessions.store import SessionSummary

_COLUMNS = (
    "id, epoch, num_messages, num_tokens, created_seconds, updated_seconds, metadata, owner, chat, "
    "settings, num_pinned, parent, num_shared, digest"
)
_CHANGED = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:])
_FAMILY = """
WITH RECURSIVE family (id, parent) AS (
    SELECT id, parent FROM sessions WHERE id = ?
    UNION
    SELECT s.id, s.parent FROM sessions s JOIN family f ON s.id = f.parent OR s.parent = f.id
)
SELECT id FROM family"""
NEWEST_FIRST = "ORDER BY updated_seconds DESC, id LIMIT ?"


Cursor = tuple[float, str]
"""Time of the last change, and id, of a session in a list."""


class SummaryRows:
    """Read and write the rows that describe sessions.

    Args:
        database: of the sessions.
    """

    def __init__(self, database: SqlConnection) -> None:
        self._database = database

    def get(self, session_id: str) -> SessionSummary | None:
        """Return a session; None if there is none of that id."""
        found = self.where("id = ?", session_id)
        return found[0] if found else None

    def where(self, condition: str, *values: Any) -> list[SessionSummary]:
        """Return the sessions that a condition of SQL holds for."""
        statement = f"SELECT {_COLUMNS} FROM sessions WHERE {condition}"
        return [_as_summary(*row) for row in self._database.execute(statement, values)]

    def newest(
        self,
        owner: str | None,
        limit: int,
        after: Cursor | None,
        matching: tuple[str, Sequence[str]],
    ) -> list[SessionSummary]:
        """Return the sessions that changed last, the newest first.

        Args:
            owner: of the sessions; None for all.
            limit: how many.
            after: place of the last one that is known, see `cursor_of`.
            matching: a condition of SQL, with its values.
        """
        condition, values = matching[0], list[Any](matching[1])
        if owner is not None:
            condition, values = f"{condition} AND owner = ?", [*values, owner]
        if after is not None:
            updated, session_id = after
            condition += " AND (updated_seconds < ? OR (updated_seconds = ? AND id > ?))"
            values += [updated, updated, session_id]
        return self.where(f"{condition} {NEWEST_FIRST}", *values, limit)

    def family(self, owner: str, session_id: str) -> list[SessionSummary]:
        """Return the other sessions that share messages with one, the oldest first."""
        found = f"owner = ? AND id <> ? AND id IN ({_FAMILY}) ORDER BY created_seconds"
        return self.where(found, owner, session_id, session_id)

    def put(self, summary: SessionSummary) -> None:
        """Insert or replace a session."""
        metadata, settings = _json(summary.metadata), _json(summary.settings)
        marks = ", ".join("?" for _ in _COLUMNS.split(","))
        self._database.execute(
            f"INSERT INTO sessions ({_COLUMNS}) VALUES ({marks}) "
            f"ON CONFLICT (id) DO UPDATE SET {_CHANGED}",
            (
                summary.id,
                summary.epoch,
                summary.num_messages,
                summary.num_tokens,
                summary.created_seconds,
                summary.updated_seconds,
                metadata,
                summary.owner,
                summary.group,
                settings,
                summary.num_pinned_tokens,
                summary.parent_id,
                summary.num_shared_messages,
                _digest(summary, metadata, settings),
            ),
        )


def _as_summary(*row: Any) -> SessionSummary:
    *facts, digest = row
    metadata, settings = facts[6], facts[9]
    facts[6], facts[9] = json.loads(metadata), json.loads(settings)
    summary = SessionSummary(*facts)
    if _digest(summary, metadata, settings) != digest:
        raise InputError("a checksum does not fit")
    return summary


def _json(value: Any) -> str:
    return json.dumps(dict(value), ensure_ascii=False, sort_keys=True)


def _digest(summary: SessionSummary, metadata: str, settings: str) -> bytes:
    facts = (
        summary.id,
        summary.epoch,
        summary.num_messages,
        summary.num_tokens,
        metadata,
        summary.owner,
        summary.group,
        settings,
        summary.num_pinned_tokens,
        summary.parent_id,
        summary.num_shared_messages,
    )
    return digest_of(*(str(fact).encode() for fact in facts))


def cursor_of(after: str) -> Cursor:
    """Return the place that a `SessionSummary.cursor` names.

    Raises:
        InputError: it names none.
    """
    updated, _, session_id = after.partition("/")
    try:
        return float(updated), session_id
    except ValueError as error:
        raise InputError(f"after={after!r} is no cursor; pass one that a list returned") from error
