"""Migrate a database that an older release made."""

from __future__ import annotations

import json

import apsw

from streamingllm.errors import InputError
from streamingllm.sessions.session_rows import SessionRows, digest_of, scope_of
from streamingllm.sessions.store import SessionSummary
from streamingllm.sessions.summary_rows import SummaryRows

_OLD_TABLES = ("sessions", "messages", "tokens", "snapshots", "parts")


def migrate_from_1(database: apsw.Connection, tables: str) -> None:
    """Turn the tables of version 1 into those of version 2, within a transaction.

    Version 1 had no owners, no settings, no branches and no digests of histories.

    Args:
        database: with the tables of version 1.
        tables: statements that make those of version 2.

    Raises:
        InputError: a checksum does not fit.
    """
    database.execute("DROP INDEX sessions_by_age")
    for table in _OLD_TABLES:
        database.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    database.execute(tables)
    summaries = SummaryRows(database)
    for summary in _summaries(database):
        summaries.put(summary)
        _copy_messages(database, summary.id)
    database.execute("INSERT INTO tokens SELECT * FROM old_tokens")
    database.execute(
        "INSERT INTO snapshots SELECT session, num_tokens, digest, "
        "(SELECT coalesce(sum(length(content)), 0) FROM old_parts AS part "
        "WHERE part.session = old_snapshots.session), NULL FROM old_snapshots"
    )
    database.execute("INSERT INTO parts SELECT * FROM old_parts")
    for table in _OLD_TABLES:
        database.execute(f"DROP TABLE old_{table}")


def _summaries(database: apsw.Connection) -> list[SessionSummary]:
    find = (
        "SELECT id, epoch, num_messages, num_tokens, created_seconds, updated_seconds, metadata, "
        "digest FROM old_sessions"
    )
    return [_checked(*row) for row in database.execute(find)]


def _checked(
    session_id: str,
    epoch: int,
    num_messages: int,
    num_tokens: int,
    created: float,
    updated: float,
    metadata: str,
    digest: bytes,
) -> SessionSummary:
    counts = (epoch, num_messages, num_tokens)
    facts = (session_id, *counts, metadata)
    if digest_of(*(str(fact).encode() for fact in facts)) != digest:
        raise InputError("a checksum does not fit")
    return SessionSummary(session_id, *counts, created, updated, json.loads(metadata))


def _copy_messages(database: apsw.Connection, session_id: str) -> None:
    """Copy messages with the digests they have, and add those of their histories."""
    old = SessionRows(database, session_id, messages="old_messages")
    SessionRows(database, session_id).append_messages(0, old.messages(), scope_of("", ""))
