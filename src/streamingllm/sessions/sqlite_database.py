"""One connection to a database of sessions: its transactions, its lock, its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import apsw

from streamingllm.errors import SnapshotError
from streamingllm.sessions.sqlite_schema import open_database


class SqliteDatabase:
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

    def __init__(
        self,
        path: Path,
        mode: Literal["create", "write", "read"],
        journal: Literal["wal", "delete"],
    ) -> None:
        self.path = path
        self.name = str(path)
        self.connection = open_database(path, mode, journal)
        self._lock = threading.RLock()
        self._is_open = False  # whether a transaction is
        self._after_commit: list[Callable[[], object]] = []
        self._has_old_log = False  # whether the log may hold what has been deleted

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self.connection.close()

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement within a transaction and return its rows."""
        return [*self.connection.execute(statement, values)]

    def seconds(self) -> float:
        """Return the time since 1970."""
        return time.time()

    def lock(self, name: str) -> None:
        """Bar transactions that lock the same name; one of SQLite bars all others anyway."""

    def after_commit(self, action: Callable[[], object]) -> None:
        """Do something once the open transaction is durable; not at all if it is not."""
        self._after_commit.append(action)

    def wipe_log(self) -> None:
        """Empty the write-ahead log after the open transaction: it holds what was deleted."""
        self._has_old_log = True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes in the body durable together, or none of them.

        Raises:
            SnapshotError: the database cannot be written; it is as it was before.
        """
        with self._within("BEGIN IMMEDIATE"):
            try:
                yield
            except apsw.Error as error:
                raise self._unusable(error) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read one state of the database; say in one line what is wrong with it.

        Raises:
            SnapshotError: it is damaged.
        """
        with self._within("BEGIN"):
            try:
                yield
            except (apsw.Error, ValueError, TypeError) as error:
                reason = " ".join(str(error).split())
                raise SnapshotError(
                    f"{self.path}: is damaged ({reason}); restore a backup"
                ) from error

    @contextmanager
    def _within(self, begin: str) -> Iterator[None]:
        """Run the body in a transaction, or in the one that is open."""
        with self._lock:
            if self._is_open:
                yield
                return
            try:
                self.connection.execute(begin)
                self._is_open = True
                yield
                self.connection.execute("COMMIT")
                actions, self._after_commit = self._after_commit, []
                for action in actions:
                    action()
                self._empty_log()
            except apsw.Error as error:
                raise self._unusable(error) from error
            finally:
                self._is_open = False
                self._after_commit = []
                if self.connection.in_transaction:
                    with suppress(apsw.Error):
                        self.connection.execute("ROLLBACK")

    def _empty_log(self) -> None:
        """Empty the log if it is due; while another connection reads, the next commit does it."""
        if self._has_old_log:
            with suppress(apsw.BusyError, apsw.LockedError):
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                self._has_old_log = False

    def _unusable(self, error: Exception) -> SnapshotError:
        return SnapshotError(f"{self.path}: cannot be used ({error}); it is unchanged")
