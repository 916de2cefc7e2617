"""Sessions of one database, read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Self

from streamingllm.errors import InputError, SessionNotFoundError
from streamingllm.sessions.database import Database
from streamingllm.sessions.message_index import MessageIndex, WordSearch
from streamingllm.sessions.session_rows import SessionRows, digest_of, scope_of
from streamingllm.sessions.snapshot_files import SnapshotFiles
from streamingllm.sessions.snapshot_rows import SnapshotRows
from streamingllm.sessions.store import SessionSummary, Snapshot, SnapshotRecord, StoredSession
from streamingllm.sessions.summary_rows import NEWEST_FIRST, SummaryRows, cursor_of
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Transcript

_MAX_CANDIDATES = 8


class SqlReader:
    """Read the sessions of a database.

    Args:
        database: with the tables of sessions.
        search: of words in messages.
        files: where contents of snapshots go; None keeps them in the database.
    """

    def __init__(self, database: Database, search: WordSearch, files: SnapshotFiles | None) -> None:
        self.database = database
        self._summaries = SummaryRows(database.connection)
        self._search = search
        self.indexes: list[MessageIndex] = [search]
        with database.reading():
            self._snapshots = SnapshotRows(database, files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make all calls in the body durable together; see `Database.transaction`."""
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
        matching = ("TRUE", ()) if query is None else self._search.condition(query, owner)
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

    def snapshot_record(self, session_id: str) -> SnapshotRecord | None:
        """Describe the snapshot of a session; None if there is none."""
        with self.database.reading():
            return self._snapshots.record(session_id)

    def _rows(self, session_id: str) -> SessionRows:
        return SessionRows(self.database.connection, session_id, self.indexes)

    def _summary(self, session_id: str, owner: str | None = None) -> SessionSummary:
        summary = self._summaries.get(session_id)
        if summary is None or owner not in (None, summary.owner):
            raise SessionNotFoundError(f"session_id={session_id!r} is not in {self.database.name}")
        return summary
