"""Open a database of sessions: its tables, its marks, its safety."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import apsw

from streamingllm.errors import SnapshotError

_APPLICATION_ID = 0x534C4C4D  # "SLLM"
_VERSION = 2
_BUSY_MILLISECONDS = 5000
_FLAGS = {
    "create": apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
    "write": apsw.SQLITE_OPEN_READWRITE,
    "read": apsw.SQLITE_OPEN_READONLY,
}
_TABLES = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY NOT NULL,
    epoch INTEGER NOT NULL,
    num_messages INTEGER NOT NULL,
    num_tokens INTEGER NOT NULL,
    created_seconds REAL NOT NULL,
    updated_seconds REAL NOT NULL,
    metadata TEXT NOT NULL,
    owner TEXT NOT NULL,
    chat TEXT NOT NULL,
    settings TEXT NOT NULL,
    num_pinned INTEGER NOT NULL,
    parent TEXT,
    num_shared INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_age ON sessions (owner, updated_seconds);
CREATE INDEX sessions_by_parent ON sessions (parent) WHERE parent IS NOT NULL;
CREATE TABLE messages (
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    digest BLOB NOT NULL,
    history_key BLOB NOT NULL,
    history BLOB NOT NULL,
    PRIMARY KEY (session, number)
) STRICT;
CREATE INDEX messages_by_history ON messages (history_key);
CREATE TABLE tokens (
    session TEXT NOT NULL,
    first INTEGER NOT NULL,
    ids BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (session, first)
) STRICT;
CREATE TABLE snapshots (
    session TEXT PRIMARY KEY NOT NULL,
    num_tokens INTEGER NOT NULL,
    digest BLOB NOT NULL,
    num_bytes INTEGER NOT NULL,
    file TEXT
) STRICT;
CREATE TABLE parts (
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (session, number)
) STRICT;
"""


def open_database(
    path: Path, mode: Literal["create", "write", "read"], journal: Literal["wal", "delete"]
) -> apsw.Connection:
    """Return a connection to a database of sessions.

    Raises:
        SnapshotError: it cannot be opened, or is no database of this release.
    """
    doing = "read" if mode == "read" else "written"
    try:
        database = apsw.Connection(str(path), flags=_FLAGS[mode])
    except apsw.Error as error:
        raise SnapshotError(f"{path}: cannot be {doing} ({error})") from error
    try:
        _secure(database)
        if mode == "create":
            _create(database)
        _check(database, path)
        if mode != "read":
            database.pragma("journal_mode", journal)
            # EXTRA also syncs the folder once the journal is deleted.
            database.pragma("synchronous", "FULL" if journal == "wal" else "EXTRA")
    except BaseException as error:
        database.close()
        if isinstance(error, apsw.Error):
            raise SnapshotError(f"{path}: cannot be {doing} ({error})") from error
        raise
    return database


def is_database(path: Path) -> bool:
    """Tell whether a file is a database of sessions, or empty."""
    try:
        if path.stat().st_size > 0:
            open_database(path, "read", "delete").close()
    except (OSError, SnapshotError):
        return False
    return True


def _secure(database: apsw.Connection) -> None:
    """Let no trigger, view or pragma of a foreign file run anything."""
    database.set_busy_timeout(_BUSY_MILLISECONDS)
    database.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    database.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    database.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    database.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)


def _create(database: apsw.Connection) -> None:
    with database:
        is_new = not [*database.execute("SELECT 1 FROM sqlite_schema LIMIT 1")]
        if is_new and database.pragma("application_id") == 0:
            database.execute(_TABLES)
            database.pragma("application_id", _APPLICATION_ID)
            database.pragma("user_version", _VERSION)


def _check(database: apsw.Connection, path: Path) -> None:
    if database.pragma("application_id") != _APPLICATION_ID:
        raise SnapshotError(f"{path}: holds no sessions; name a file that /save or a store wrote")
    if (version := database.pragma("user_version")) != _VERSION:
        raise SnapshotError(f"{path}: has version {version}; this release reads {_VERSION}")
