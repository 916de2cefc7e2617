"""Sessions in one database, written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streamingllm.errors import InputError, SessionConflictError
from streamingllm.sessions.response_store import delete_responses
from streamingllm.sessions.session_rows import scope_of
from streamingllm.sessions.sql_reader import SqlReader
from streamingllm.sessions.store import (
    SessionSummary,
    Snapshot,
    TurnCommit,
)
from streamingllm.sessions.turn_arithmetic import summary_after


class SqlStore(SqlReader):
    """Keep sessions in a database; a `SessionStore`.

    Each message and each chunk of token ids carries a digest of itself and all before it. Damage is
    found when a session is read, and a commit writes only what is new.

    The arguments are those of `SqlReader`.
    """

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
            for name in sorted((session_id, new_id)):
                self.database.lock(name)
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
            self.database.lock(session_id)
            stored = self._summary(session_id, owner)
            self._summaries.put(replace(stored, metadata=dict(metadata)))

    def delete(self, session_id: str, owner: str | None = None) -> None:
        """Delete a session; see `SessionStore`."""
        with self.database.transaction():
            self.database.lock(session_id)
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

    def drop_snapshot(self, session_id: str) -> None:
        """Delete the snapshot of a session, if there is one."""
        with self.database.transaction():
            self.database.lock(session_id)
            self._snapshots.delete(session_id)

    def raise_epoch(self, session_id: str) -> int:
        """Let writers that know the epoch of a session be refused; return the new one.

        Raises:
            SessionNotFoundError: there is none of that id.
        """
        with self.database.transaction():
            self.database.lock(session_id)
            stored = self._summary(session_id)
            self._summaries.put(replace(stored, epoch=stored.epoch + 1))
        return stored.epoch + 1

    def _create(self, summary: SessionSummary) -> None:
        with self.database.transaction():
            self.database.lock(summary.id)
            if self._summaries.get(summary.id) is not None:
                raise SessionConflictError(f"session_id={summary.id!r} exists; use another id")
            self._summaries.put(summary)

    def _summary_at(self, session_id: str, epoch: int) -> SessionSummary:
        self.database.lock(session_id)
        stored = self._summary(session_id)
        if stored.epoch != epoch:
            raise SessionConflictError(
                f"epoch={epoch} of session {session_id!r} is not {stored.epoch}, the stored one: "
                "another writer has changed it; read it again"
            )
        return stored
