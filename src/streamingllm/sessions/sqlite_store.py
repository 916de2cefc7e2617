"""Sessions in one SQLite database."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from streamingllm.sessions.exclusive_lock import lock_exclusively
from streamingllm.sessions.session_search import SessionSearch
from streamingllm.sessions.snapshot_files import SnapshotFiles, SnapshotFolder
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.sqlite_database import SqliteDatabase


class SqliteStore(SqlStore):
    """Keep sessions in a SQLite database; a `SessionStore`.

    Args:
        path: of the database.
        mode: "create" makes a missing one, "write" and "read" need one that is there.
        journal: "wal" for many writers; "delete" leaves one file behind when it is closed.
        snapshots: folder of snapshots, or files; None keeps them in the database.
        is_searchable: index messages that are not indexed yet; an index that is there is kept.
        is_exclusive: refuse another process that opens the database exclusively.

    Raises:
        SessionConflictError: `is_exclusive`, and another process serves the database.
        SnapshotError: the file cannot be opened, or is no database of this release.
    """

    database: SqliteDatabase

    def __init__(
        self,
        path: Path,
        *,
        mode: Literal["create", "write", "read"] = "create",
        journal: Literal["wal", "delete"] = "wal",
        snapshots: Path | SnapshotFiles | None = None,
        is_searchable: bool = True,
        is_exclusive: bool = False,
    ) -> None:
        self.path = path
        with ExitStack() as undo:
            if is_exclusive:
                undo.callback(lock_exclusively(path).release)
            database = SqliteDatabase(path, mode, journal)
            undo.callback(database.close)
            files = SnapshotFolder(snapshots) if isinstance(snapshots, Path) else snapshots
            with database.reading():
                search = SessionSearch(database.connection)
            super().__init__(database, search, files)
            if is_searchable and mode != "read":
                with database.transaction():
                    search.create()
            self._open = undo.pop_all()

    def close(self) -> None:
        """Close the database, and let another process serve it."""
        self._open.close()
