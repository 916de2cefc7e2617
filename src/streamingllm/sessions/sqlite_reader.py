"""Sessions of one SQLite database, read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Literal, Self

from streamingllm.errors import InputError, SessionNotFoundError
from streamingllm.sessions.exclusive_lock import lock_exclusively
from streamingllm.sessions.message_index import MessageIndex
from streamingllm.sessions.session_search import SessionSearch
from streamingllm.sessions.snapshot_files import SnapshotFiles
from streamingllm.sessions.sqlite_database import SqliteDatabase
from streamingllm.sessions.sqlite_rows import SessionRows, digest_of, scope_of
from streamingllm.sessions.sqlite_snapshots import SnapshotRows
from streamingllm.sessions.sqlite_summaries import NEWEST_FIRST, SummaryRows, cursor_of
from streamingllm.sessions.store import SessionSummary, Snapshot, SnapshotRecord, StoredSession
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Transcript

_MAX_CANDIDATES = 8


class SqliteReader:
    """Open a database of sessions and read it.

    Args:
        path: of the database.
        mode: "create" makes a missing one, "write" and "read" need one that is there.
        journal: "wal" for many writers; "delete" leaves one file behind when it is closed.
        snapshots: folder of snapshots; None keeps them in the database.
        is_searchable: index messages that are not indexed yet; an index that is there is kept.
        is_exclusive: refuse another process that opens the database exclusively.

    Raises:
        SessionConflictError: `is_exclusive`, and another process serves the database.
        SnapshotError: the file cannot be opened, or is no database of this release.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: Literal["create", "write", "read"] = "create",
        journal: Literal["wal", "delete"] = "wal",
        snapshots: Path | None = None,
        is_searchable: bool = True,
        is_exclusive: bool = False,
    ) -> None:
        self.path = path
        with ExitStack() as undo:
            if is_exclusive:
                undo.callback(lock_exclusively(path).release)
            self.database = SqliteDatabase(path, mode, journal)
            undo.callback(self.database.close)
            self._summaries = SummaryRows(self.database.connection)
            files = None if snapshots is None else SnapshotFiles(snapshots)
            with self.database.reading():
                self._snapshots = SnapshotRows(self.database, files)
                self._search = SessionSearch(self.database.connection)
            self.indexes: list[MessageIndex] = [self._search]
            if is_searchable and mode != "read":
                with self.database.transaction():
                    self._search.create()
            self._open = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._open.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make all calls in the body durable together; see `SqliteDatabase.transaction`."""
        return self.database.transaction()

    def get(self, session_id: str, owner: str | None = None) -> StoredSession:
        """Return a session; see `SessionStore`."""
        with self.database.reading():
            summary, rows = self._summary(session_id, owner), self._rows(session_id)
            transcript, token_log = Transcript(), TokenLog()
            for message in rows.messages():
                transcript.append(message)
            for ids in rows.token_ids():
                token_log.extend(ids)
            counts = (len(transcript), len(token_log))
            if counts != (summary.num_messages, summary.num_tokens):
                raise InputError(f"it holds {counts[0]} messages and {counts[1]} token ids")
        return StoredSession(summary, transcript, token_log)

    def summary(self, session_id: str, owner: str | None = None) -> SessionSummary:
        """Return a session without its messages; see `SessionStore`."""
        with self.database.reading():
            return self._summary(session_id, owner)

    def list(
        self,
        owner: str | None = None,
        *,
        limit: int = 100,
        after: str | None = None,
        query: str | None = None,
    ) -> Sequence[SessionSummary]:
        """Return the sessions that changed last; see `SessionStore`."""
        matching = ("1", ()) if query is None else self._search.condition(query, owner)
        place = None if after is None else cursor_of(after)
        with self.database.reading():
            return self._summaries.newest(owner, limit, place, matching)

    def branches(self, session_id: str, owner: str) -> Sequence[SessionSummary]:
        """Return the sessions that share messages with one; see `SessionStore`."""
        with self.database.reading():
            self._summary(session_id, owner)
            return self._summaries.family(owner, session_id)

    def find_prefix(
        self, owner: str, digests: Sequence[bytes], group: str = ""
    ) -> Sequence[tuple[str, int]]:
        """Return sessions that begin with a history; see `SessionStore`."""
        scope = scope_of(owner, group)
        find = (
            "SELECT session FROM messages JOIN sessions ON id = session WHERE history_key = ? "
            f"{NEWEST_FIRST}"
        )
        with self.database.reading():
            for num_known in range(len(digests), 0, -1):
                key = digest_of(scope, digests[num_known - 1])
                found = self.database.run(find, key, _MAX_CANDIDATES)
                if found:
                    return [(session_id, num_known) for (session_id,) in found]
        return []

    def count(self) -> int:
        """Return the number of sessions."""
        with self.database.reading():
            ((count,),) = self.database.run("SELECT count(*) FROM sessions")
        return int(count)

    def get_snapshot(self, session_id: str) -> Snapshot | None:
        """Return the newest snapshot; see `SessionStore`."""
        with self.database.reading():
            self._summary(session_id)
            return self._snapshots.get(session_id)

    def snapshots(self) -> Sequence[SnapshotRecord]:
        """Return what snapshots there are, the oldest first."""
        with self.database.reading():
            return self._snapshots.records()

    def _rows(self, session_id: str) -> SessionRows:
        return SessionRows(self.database.connection, session_id, self.indexes)

    def _summary(self, session_id: str, owner: str | None = None) -> SessionSummary:
        summary = self._summaries.get(session_id)
        if summary is None or owner not in (None, summary.owner):
            raise SessionNotFoundError(f"session_id={session_id!r} is not in {self.path}")
        return summary
