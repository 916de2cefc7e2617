"""Open a database of sessions: its tables, its marks, its safety."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import apsw

from streamingllm.errors import InputError, SnapshotError
from streamingllm.sessions.sqlite_migration import migrate_from_1

_APPLICATION_ID = 0x534C4C4D  # "SLLM"
_VERSION = 2
_OLD_VERSION = 1
_SAFE_SQLITE = (3, 51, 3)  # older ones can lose transactions: sqlite.org/wal.html
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
    row INTEGER PRIMARY KEY,
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    digest BLOB NOT NULL,
    history_key BLOB NOT NULL,
    history BLOB NOT NULL,
    UNIQUE (session, number)
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
CREATE TABLE responses (
    row INTEGER PRIMARY KEY,
    id TEXT UNIQUE NOT NULL,
    owner TEXT NOT NULL,
    session TEXT NOT NULL,
    message TEXT,
    status TEXT NOT NULL,
    body TEXT NOT NULL,
    input_items TEXT NOT NULL,
    created_seconds REAL NOT NULL,
    expires_seconds REAL NOT NULL
) STRICT;
CREATE INDEX responses_by_session ON responses (session);
CREATE INDEX responses_by_expiry ON responses (expires_seconds);
CREATE TABLE response_events (
    response TEXT NOT NULL,
    number INTEGER NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (response, number)
) STRICT, WITHOUT ROWID;
"""


def open_database(
    path: Path, mode: Literal["create", "write", "read"], journal: Literal["wal", "delete"]
) -> apsw.Connection:
    """Return a connection to a database of sessions.

    Raises:
        SnapshotError: it cannot be opened, or is no database of this release.
    """
    if journal == "wal":
        _check_sqlite(path)
    doing = "read" if mode == "read" else "written"
    try:
        database = apsw.Connection(str(path), flags=_FLAGS[mode])
    except apsw.Error as error:
        raise SnapshotError(f"{path}: cannot be {doing} ({error})") from error
    try:
        _secure(database)
        if mode == "create":
            _create(database)
        database = _migrated(database, path, is_writable=mode != "read")
        _check(database, path)
        if mode != "read":
            database.pragma("journal_mode", journal)
            # EXTRA also syncs the folder once the journal is deleted.
            database.pragma("synchronous", "FULL" if journal == "wal" else "EXTRA")
            database.pragma("secure_delete", 1)  # zeros take the place of what is deleted
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


def _migrated(database: apsw.Connection, path: Path, *, is_writable: bool) -> apsw.Connection:
    """Return a database of this version; one that is only read is copied to memory first."""
    is_old = (
        database.pragma("application_id") == _APPLICATION_ID
        and database.pragma("user_version") == _OLD_VERSION
    )
    if not is_old:
        return database
    target = database
    if not is_writable:
        target = apsw.Connection(":memory:")
        with target.backup("main", database, "main") as backup:
            backup.step(-1)
        database.close()
        _secure(target)
    try:
        with target:
            migrate_from_1(target, _TABLES)
            target.pragma("user_version", _VERSION)
    except (InputError, ValueError, TypeError) as error:
        raise SnapshotError(f"{path}: is damaged ({error}); restore a backup") from error
    return target


def _check_sqlite(path: Path) -> None:
    version = apsw.sqlite_lib_version()
    if tuple(map(int, version.split("."))) < _SAFE_SQLITE:
        raise SnapshotError(
            f"{path}: SQLite {version} can lose committed turns; install apsw 3.51.3 or later"
        )


def _check(database: apsw.Connection, path: Path) -> None:
    if database.pragma("application_id") != _APPLICATION_ID:
        raise SnapshotError(f"{path}: holds no sessions; name a file that /save or a store wrote")
    if (version := database.pragma("user_version")) != _VERSION:
        raise SnapshotError(f"{path}: has version {version}; this release reads {_VERSION}")
