"""Sessions in one SQLite database."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from streamingllm.errors import InputError, SessionConflictError, SessionNotFoundError
from streamingllm.sessions.exclusive_lock import lock_exclusively
from streamingllm.sessions.response_store import delete_responses
from streamingllm.sessions.session_search import SessionSearch
from streamingllm.sessions.snapshot_files import SnapshotFiles
from streamingllm.sessions.sqlite_database import SqliteDatabase
from streamingllm.sessions.sqlite_rows import SessionRows, digest_of, scope_of
from streamingllm.sessions.sqlite_snapshots import SnapshotRows
from streamingllm.sessions.sqlite_summaries import NEWEST_FIRST, SummaryRows, cursor_of
from streamingllm.sessions.store import (
    SessionSummary,
    Snapshot,
    SnapshotRecord,
    StoredSession,
    TurnCommit,
)
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Transcript
from streamingllm.sessions.turn_arithmetic import summary_after

_MAX_CANDIDATES = 8


class SqliteStore:
    """Keep sessions in a SQLite database; a `SessionStore`.

    Each message and each chunk of token ids carries a digest of itself and all before it. Damage is
    found when a session is read, and a commit writes only what is new.

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
            if is_searchable and mode != "read":
                with self.database.transaction():
                    self._search.create()
            self._open = undo.pop_all()

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._open.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make all calls in the body durable together; see `SqliteDatabase.transaction`."""
        return self.database.transaction()

    def create(
        self,
        session_id: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        owner: str = "",
        group: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> int:
        """Create an empty session and return its epoch; see `SessionStore`."""
        now = time.time()
        facts = (dict(metadata or {}), owner, group, dict(settings or {}))
        self._create(SessionSummary(session_id, 0, 0, 0, now, now, *facts))
        return 0

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

    def fork(
        self,
        session_id: str,
        owner: str,
        new_id: str,
        num_messages: int,
        num_tokens: int,
        *,
        settings: Mapping[str, Any],
    ) -> int:
        """Create a session with the first part of another; see `SessionStore`."""
        now = time.time()
        with self.database.transaction():
            source = self._summary(session_id, owner)
            branch = replace(
                source,
                id=new_id,
                epoch=0,
                num_messages=num_messages,
                num_tokens=num_tokens,
                created_seconds=now,
                updated_seconds=now,
                settings=dict(settings),
                parent_id=session_id,
                num_shared_messages=num_messages,
            )
            self._create(branch)
            scope = scope_of(owner, source.group)
            self._rows(new_id).copy_from(self._rows(session_id), num_messages, num_tokens, scope)
        return 0

    def update_metadata(self, session_id: str, owner: str, metadata: Mapping[str, Any]) -> None:
        """Replace the metadata of a session; see `SessionStore`."""
        with self.database.transaction():
            stored = self._summary(session_id, owner)
            self._summaries.put(replace(stored, metadata=dict(metadata)))

    def delete(self, session_id: str, owner: str | None = None) -> None:
        """Delete a session; see `SessionStore`."""
        with self.database.transaction():
            owner = self._summary(session_id, owner).owner
            rows = self._rows(session_id)
            rows.take_back(0, 0)
            self._snapshots.delete(session_id)
            rows.run("DELETE FROM sessions WHERE id = ?")
            # A manager puts the owner before its ids; responses name both.
            names = (session_id, session_id.removeprefix(f"{owner or '-'}/"))
            delete_responses(self.database, "owner = ? AND session IN (?, ?)", owner, *names)
            self.database.wipe_log()

    def expire(self, now: float, max_age_seconds: float) -> int:
        """Delete the sessions that have not changed for so long; see `SessionStore`."""
        oldest = "SELECT id FROM sessions WHERE updated_seconds < ?"
        with self.database.transaction():
            doomed = self.database.run(oldest, now - max_age_seconds)
            for (session_id,) in doomed:
                self.delete(session_id)
        return len(doomed)

    def count(self) -> int:
        """Return the number of sessions."""
        with self.database.reading():
            ((count,),) = self.database.run("SELECT count(*) FROM sessions")
        return int(count)

    def commit_turn(self, session_id: str, epoch: int, turn: TurnCommit) -> int:
        """Append a turn and return the new epoch; see `SessionStore`."""
        with self.database.transaction():
            stored = self._summary_at(session_id, epoch)
            after = summary_after(stored, turn)
            rows = self._rows(session_id)
            rows.take_back(turn.num_messages_before, turn.num_tokens_before)
            if turn.num_messages_before < stored.num_messages:
                self.database.wipe_log()
            self._snapshots.delete_beyond(session_id, turn.num_tokens_before)
            scope = scope_of(stored.owner, stored.group)
            rows.append_messages(turn.num_messages_before, turn.messages, scope)
            rows.append_token_ids(turn.num_tokens_before, turn.token_ids)
            self._summaries.put(after)
        return after.epoch

    def put_snapshot(self, session_id: str, epoch: int, snapshot: Snapshot) -> None:
        """Replace the snapshot of a session; see `SessionStore`."""
        file = self._snapshots.write_file(session_id, snapshot.content)
        try:
            with self.database.transaction():
                stored = self._summary_at(session_id, epoch)
                if not 0 <= snapshot.num_tokens <= stored.num_tokens:
                    raise InputError(
                        f"num_tokens={snapshot.num_tokens} of the snapshot is not 0 to "
                        f"{stored.num_tokens}, the tokens stored; commit the turn first"
                    )
                self._snapshots.put(session_id, snapshot, file)
        except BaseException:
            self._snapshots.delete_file(file)
            raise

    def get_snapshot(self, session_id: str) -> Snapshot | None:
        """Return the newest snapshot; see `SessionStore`."""
        with self.database.reading():
            self._summary(session_id)
            return self._snapshots.get(session_id)

    def drop_snapshot(self, session_id: str) -> None:
        """Delete the snapshot of a session, if there is one."""
        with self.database.transaction():
            self._snapshots.delete(session_id)

    def snapshots(self) -> Sequence[SnapshotRecord]:
        """Return what snapshots there are, the oldest first."""
        with self.database.reading():
            return self._snapshots.records()

    def _create(self, summary: SessionSummary) -> None:
        with self.database.transaction():
            if self._summaries.get(summary.id) is not None:
                raise SessionConflictError(f"session_id={summary.id!r} exists; use another id")
            self._summaries.put(summary)

    def _rows(self, session_id: str) -> SessionRows:
        return SessionRows(self.database.connection, session_id, self._search)

    def _summary(self, session_id: str, owner: str | None = None) -> SessionSummary:
        summary = self._summaries.get(session_id)
        if summary is None or owner not in (None, summary.owner):
            raise SessionNotFoundError(f"session_id={session_id!r} is not in {self.path}")
        return summary

    def _summary_at(self, session_id: str, epoch: int) -> SessionSummary:
        stored = self._summary(session_id)
        if stored.epoch != epoch:
            raise SessionConflictError(
                f"epoch={epoch} of session {session_id!r} is not {stored.epoch}, the stored one: "
                "another writer has changed it; read it again"
            )
        return stored
