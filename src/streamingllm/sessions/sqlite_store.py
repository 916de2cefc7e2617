"""Sessions in one SQLite database."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import apsw

from streamingllm.errors import (
    InputError,
    SessionConflictError,
    SessionNotFoundError,
    SnapshotError,
)
from streamingllm.sessions.sqlite_rows import SessionRows, digest_of
from streamingllm.sessions.sqlite_schema import open_database
from streamingllm.sessions.store import SessionSummary, Snapshot, StoredSession, TurnCommit
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Transcript

_PART_BYTES = 4 << 20  # a row holds less than a gigabyte
_COLUMNS = "id, epoch, num_messages, num_tokens, created_seconds, updated_seconds, metadata, digest"


class SqliteStore:
    """Keep sessions in a SQLite database; a `SessionStore`.

    Each message and each chunk of token ids carries a digest of itself and all before it. Damage is
    found when a session is read, and a commit writes only what is new.

    Args:
        path: of the database.
        mode: "create" makes a missing one, "write" and "read" need one that is there.
        journal: "wal" for many writers; "delete" leaves one file behind when it is closed.

    Raises:
        SnapshotError: the file cannot be opened, or is no database of this release.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: Literal["create", "write", "read"] = "create",
        journal: Literal["wal", "delete"] = "wal",
    ) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._is_open = False  # whether a transaction is
        self._database = open_database(path, mode, journal)

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all calls in the body durable together, or none of them.

        Raises:
            SnapshotError: the database cannot be written; it is as it was before.
        """
        with self._within("BEGIN IMMEDIATE"):
            try:
                yield
            except apsw.Error as error:
                raise self._unusable(error) from error

    def create(self, session_id: str, metadata: Mapping[str, Any]) -> int:
        """Create an empty session and return its epoch; see `SessionStore`."""
        now = time.time()
        with self.transaction():
            rows = self._rows(session_id)
            if rows.run("SELECT 1 FROM sessions WHERE id = ?"):
                raise SessionConflictError(f"session_id={session_id!r} exists; use another id")
            self._put(SessionSummary(session_id, 0, 0, 0, now, now, dict(metadata)))
        return 0

    def get(self, session_id: str) -> StoredSession:
        """Return a session; see `SessionStore`."""
        with self._reading():
            summary, rows = self._summary(session_id), self._rows(session_id)
            transcript, token_log = Transcript(), TokenLog()
            for message in rows.messages():
                transcript.append(message)
            for ids in rows.token_ids():
                token_log.extend(ids)
            counts = (len(transcript), len(token_log))
            if counts != (summary.num_messages, summary.num_tokens):
                raise InputError(f"it holds {counts[0]} messages and {counts[1]} token ids")
        return StoredSession(summary, transcript, token_log)

    def list(self, *, limit: int = 100) -> list[SessionSummary]:
        """Return the sessions that changed last; see `SessionStore`."""
        select = f"SELECT {_COLUMNS} FROM sessions ORDER BY updated_seconds DESC, id LIMIT ?"
        with self._reading():
            return [_as_summary(*row) for row in self._database.execute(select, (limit,))]

    def delete(self, session_id: str) -> None:
        """Delete a session; see `SessionStore`."""
        with self.transaction():
            self._summary(session_id)
            rows = self._rows(session_id)
            rows.take_back(0, 0)
            rows.delete_snapshot()
            rows.run("DELETE FROM sessions WHERE id = ?")

    def commit_turn(self, session_id: str, epoch: int, turn: TurnCommit) -> int:
        """Append a turn and return the new epoch; see `SessionStore`."""
        with self.transaction():
            stored = self._summary_at(session_id, epoch)
            after = _after(stored, turn)
            rows = self._rows(session_id)
            rows.take_back(turn.num_messages_before, turn.num_tokens_before)
            rows.append_messages(turn.num_messages_before, turn.messages)
            rows.append_token_ids(turn.num_tokens_before, turn.token_ids)
            self._put(after)
        return after.epoch

    def put_snapshot(self, session_id: str, epoch: int, snapshot: Snapshot) -> None:
        """Replace the snapshot of a session; see `SessionStore`."""
        with self.transaction():
            stored = self._summary_at(session_id, epoch)
            if not 0 <= snapshot.num_tokens <= stored.num_tokens:
                raise InputError(
                    f"num_tokens={snapshot.num_tokens} of the snapshot is not 0 to "
                    f"{stored.num_tokens}, the tokens stored; commit the turn first"
                )
            rows = self._rows(session_id)
            rows.delete_snapshot()
            digest = _snapshot_digest(snapshot)
            rows.run("INSERT INTO snapshots VALUES (?, ?, ?)", snapshot.num_tokens, digest)
            for number, first in enumerate(range(0, len(snapshot.content), _PART_BYTES)):
                part = snapshot.content[first : first + _PART_BYTES]
                rows.run("INSERT INTO parts VALUES (?, ?, ?)", number, part)

    def get_snapshot(self, session_id: str) -> Snapshot | None:
        """Return the newest snapshot; see `SessionStore`."""
        with self._reading():
            self._summary(session_id)
            rows = self._rows(session_id)
            found = rows.run("SELECT num_tokens, digest FROM snapshots WHERE session = ?")
            parts = rows.run("SELECT content FROM parts WHERE session = ? ORDER BY number")
            if not found:
                return None
            ((num_tokens, digest),) = found
            snapshot = Snapshot(num_tokens, b"".join(part for (part,) in parts))
            if _snapshot_digest(snapshot) != digest:
                raise InputError("the checksum of its snapshot does not fit")
        return snapshot

    def _rows(self, session_id: str) -> SessionRows:
        return SessionRows(self._database, session_id)

    def _put(self, summary: SessionSummary) -> None:
        metadata = json.dumps(summary.metadata, ensure_ascii=False, sort_keys=True)
        self._rows(summary.id).run(
            f"INSERT OR REPLACE INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            summary.epoch,
            summary.num_messages,
            summary.num_tokens,
            summary.created_seconds,
            summary.updated_seconds,
            metadata,
            _summary_digest(summary, metadata),
        )

    def _summary(self, session_id: str) -> SessionSummary:
        rows = self._rows(session_id).run(f"SELECT {_COLUMNS} FROM sessions WHERE id = ?")
        if not rows:
            raise SessionNotFoundError(f"session_id={session_id!r} is not in {self.path}")
        return _as_summary(*rows[0])

    def _summary_at(self, session_id: str, epoch: int) -> SessionSummary:
        stored = self._summary(session_id)
        if stored.epoch != epoch:
            raise SessionConflictError(
                f"epoch={epoch} of session {session_id!r} is not {stored.epoch}, the stored one: "
                "another writer has changed it; read it again"
            )
        return stored

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read one state of the database; say in one line what is wrong with it."""
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
                self._database.execute(begin)
                self._is_open = True
                yield
                self._database.execute("COMMIT")
            except apsw.Error as error:
                raise self._unusable(error) from error
            finally:
                self._is_open = False
                if self._database.in_transaction:
                    with suppress(apsw.Error):
                        self._database.execute("ROLLBACK")

    def _unusable(self, error: Exception) -> SnapshotError:
        return SnapshotError(f"{self.path}: cannot be used ({error}); it is unchanged")


def _after(stored: SessionSummary, turn: TurnCommit) -> SessionSummary:
    """Return the summary of a session after a turn."""
    num_tokens = turn.num_tokens_before + len(turn.token_ids)
    fits = (
        0 <= turn.num_messages_before <= stored.num_messages
        and 0 <= turn.num_tokens_before <= stored.num_tokens
        and all(message.stop <= num_tokens for message in turn.messages)
    )
    if not fits:
        raise InputError(
            f"num_messages_before={turn.num_messages_before}, num_tokens_before="
            f"{turn.num_tokens_before} do not fit to the {stored.num_messages} messages and "
            f"{stored.num_tokens} token ids stored, or a message ends behind its tokens"
        )
    return replace(
        stored,
        epoch=stored.epoch + 1,
        num_messages=turn.num_messages_before + len(turn.messages),
        num_tokens=num_tokens,
        updated_seconds=time.time(),
    )


def _as_summary(*row: Any) -> SessionSummary:
    session_id, epoch, num_messages, num_tokens, created, updated, metadata, digest = row
    counts = (epoch, num_messages, num_tokens)
    summary = SessionSummary(session_id, *counts, created, updated, json.loads(metadata))
    if _summary_digest(summary, metadata) != digest:
        raise InputError("a checksum does not fit")
    return summary


def _summary_digest(summary: SessionSummary, metadata: str) -> bytes:
    facts = (summary.id, summary.epoch, summary.num_messages, summary.num_tokens, metadata)
    return digest_of(*(str(fact).encode() for fact in facts))


def _snapshot_digest(snapshot: Snapshot) -> bytes:
    return digest_of(str(snapshot.num_tokens).encode(), snapshot.content)
