"""One connection to a database of sessions: its transactions, its lock, its errors."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import apsw

from streamingllm.errors import SnapshotError
from streamingllm.sessions.sql_transactions import SqlTransactions
from streamingllm.sessions.sqlite_schema import open_database


class SqliteDatabase(SqlTransactions[apsw.Connection]):
    """Run transactions of any thread, one at a time; a `Database`.

    Args:
        path: of the database.
        mode: "create" makes a missing one, "write" and "read" need one that is there.
        journal: "wal" for many writers; "delete" leaves one file behind when it is closed.

    Attributes:
        words_of_json: see `Database`.

    Raises:
        SnapshotError: the file cannot be opened, or is no database of this release.
    """

    words_of_json = "json_each(?) AS word"
    _begin_writing = "BEGIN IMMEDIATE"
    _begin_reading = "BEGIN"

    def __init__(
        self,
        path: Path,
        mode: Literal["create", "write", "read"],
        journal: Literal["wal", "delete"],
    ) -> None:
        super().__init__(str(path), apsw.Error, (apsw.Error, ValueError, TypeError))
        self.path = path
        self.connection = open_database(path, mode, journal)
        self._has_old_log = False  # whether the log may hold what has been deleted

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self.connection.close()

    def seconds(self) -> float:
        """Return the time since 1970."""
        return time.time()

    def lock(self, name: str) -> None:
        """Bar transactions that lock the same name; one of SQLite bars all others anyway."""

    def wipe_log(self) -> None:
        """Empty the write-ahead log after the open transaction: it holds what was deleted."""
        self._has_old_log = True

    def _committed(self) -> None:
        """Empty the log if it is due; while another connection reads, the next commit does it."""
        if self._has_old_log:
            with suppress(apsw.BusyError, apsw.LockedError):
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                self._has_old_log = False

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with suppress(apsw.Error):
                self.connection.execute("ROLLBACK")

    def _unusable(self, error: Exception) -> SnapshotError:
        return SnapshotError(f"{self.path}: cannot be used ({error}); it is unchanged")
