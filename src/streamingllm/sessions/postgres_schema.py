"""Tables of sessions in a PostgreSQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamingllm.errors import SnapshotError

if TYPE_CHECKING:
    from streamingllm.sessions.database import Database

_VERSION = 1
_LOCK = "streamingllm schema"
_TABLES = (
    "CREATE TABLE streamingllm_version (version BIGINT NOT NULL)",
    """
    CREATE TABLE sessions (
        id TEXT COLLATE "C" PRIMARY KEY,
        epoch BIGINT NOT NULL,
        num_messages BIGINT NOT NULL,
        num_tokens BIGINT NOT NULL,
        created_seconds DOUBLE PRECISION NOT NULL,
        updated_seconds DOUBLE PRECISION NOT NULL,
        metadata TEXT NOT NULL,
        owner TEXT NOT NULL,
        chat TEXT NOT NULL,
        settings TEXT NOT NULL,
        num_pinned BIGINT NOT NULL,
        parent TEXT COLLATE "C",
        num_shared BIGINT NOT NULL,
        digest BYTEA NOT NULL
    )""",
    "CREATE INDEX sessions_by_age ON sessions (owner, updated_seconds)",
    "CREATE INDEX sessions_by_parent ON sessions (parent) WHERE parent IS NOT NULL",
    """
    CREATE TABLE messages (
        row BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        session TEXT COLLATE "C" NOT NULL,
        number BIGINT NOT NULL,
        body TEXT NOT NULL,
        digest BYTEA NOT NULL,
        history_key BYTEA NOT NULL,
        history BYTEA NOT NULL,
        UNIQUE (session, number)
    )""",
    "CREATE INDEX messages_by_history ON messages (history_key)",
    """
    CREATE TABLE tokens (
        session TEXT COLLATE "C" NOT NULL,
        first BIGINT NOT NULL,
        ids BYTEA NOT NULL,
        digest BYTEA NOT NULL,
        PRIMARY KEY (session, first)
    )""",
    """
    CREATE TABLE snapshots (
        session TEXT COLLATE "C" PRIMARY KEY,
        num_tokens BIGINT NOT NULL,
        digest BYTEA NOT NULL,
        num_bytes BIGINT NOT NULL,
        file TEXT
    )""",
    """
    CREATE TABLE parts (
        session TEXT COLLATE "C" NOT NULL,
        number BIGINT NOT NULL,
        content BYTEA NOT NULL,
        PRIMARY KEY (session, number)
    )""",
    """
    CREATE TABLE responses (
        row BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id TEXT UNIQUE NOT NULL,
        owner TEXT NOT NULL,
        session TEXT NOT NULL,
        message TEXT,
        status TEXT NOT NULL,
        body TEXT NOT NULL,
        input_items TEXT NOT NULL,
        created_seconds DOUBLE PRECISION NOT NULL,
        expires_seconds DOUBLE PRECISION NOT NULL
    )""",
    "CREATE INDEX responses_by_session ON responses (session)",
    "CREATE INDEX responses_by_expiry ON responses (expires_seconds)",
    """
    CREATE TABLE response_events (
        response TEXT NOT NULL,
        number BIGINT NOT NULL,
        event TEXT NOT NULL,
        PRIMARY KEY (response, number)
    )""",
    """
    CREATE TABLE search (
        row BIGINT PRIMARY KEY,
        owner TEXT NOT NULL,
        words TSVECTOR NOT NULL
    )""",
    "CREATE INDEX search_by_words ON search USING gin (words)",
    "CREATE INDEX search_by_owner ON search (owner)",
    """
    CREATE FUNCTION instr(TEXT, TEXT) RETURNS INTEGER LANGUAGE sql IMMUTABLE AS
    'SELECT strpos($1, $2)'""",
)


def create_tables(database: Database) -> None:
    """Make the tables within a transaction, if they are missing.

    Raises:
        SnapshotError: they are those of another release.
    """
    database.lock(_LOCK)
    ((is_there,),) = database.run("SELECT to_regclass('streamingllm_version') IS NOT NULL")
    if not is_there:
        for statement in _TABLES:
            database.run(statement)
        database.run("INSERT INTO streamingllm_version VALUES (?)", _VERSION)
    ((version,),) = database.run("SELECT version FROM streamingllm_version")
    if version != _VERSION:
        raise SnapshotError(
            f"{database.name}: has version {version}; this release reads {_VERSION}"
        )
