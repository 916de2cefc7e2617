"""Snapshots on disk under a bound: the oldest make room for new ones."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from streamingllm.engine import StreamState
from streamingllm.errors import SessionConflictError, SessionNotFoundError, SnapshotError
from streamingllm.sessions.session import Session
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.store import Snapshot

_log = logging.getLogger("streamingllm.sessions")


class SnapshotShelf:
    """Put snapshots into a store while they fit under a bound.

    Args:
        store: of the sessions.
        max_bytes: bound on the bytes of all snapshots.
        is_shared: other processes write to the store; the bound is on snapshots of this one.

    Attributes:
        nbytes: bytes of all snapshots, those that are being written included.
    """

    def __init__(self, store: SqlStore, max_bytes: int, *, is_shared: bool = False) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()
        self._shelved: OrderedDict[str, tuple[int, int]] = OrderedDict()  # id -> tokens, bytes
        self.nbytes = 0
        for record in () if is_shared else store.snapshots():  # the oldest first
            self._shelved[record.session_id] = (record.num_tokens, record.nbytes)
            self.nbytes += record.nbytes

    def __len__(self) -> int:
        return len(self._shelved)

    def num_tokens(self, key: str) -> int | None:
        """Return how many tokens the snapshot of a session has seen; None without one."""
        shelved = self._shelved.get(key)
        return None if shelved is None else shelved[0]

    async def put(self, session: Session, num_tokens: int, state: StreamState) -> bool:
        """Write a snapshot; tell whether there was room and the session is stored."""
        if session.epoch is None:
            return False
        if self.num_tokens(session.key) == num_tokens:
            return True
        content = await asyncio.to_thread(state.to_bytes)
        async with self._lock:
            if not await self._reserve(session.key, len(content)):
                return False
            try:
                await asyncio.to_thread(
                    self._store.put_snapshot,
                    session.key,
                    session.epoch,
                    Snapshot(num_tokens, content),
                )
            except (SnapshotError, SessionConflictError, SessionNotFoundError) as error:
                _log.warning("a snapshot cannot be written (%s)", error)
                self.nbytes -= len(content)
                return False
            self._forget(session.key)
            self._shelved[session.key] = (num_tokens, len(content))
        return True

    async def get(self, session: Session) -> Snapshot | None:
        """Return the snapshot of a session, verified; None if there is none that is whole."""
        if session.key not in self._shelved:
            return None
        try:
            return await asyncio.to_thread(self._store.get_snapshot, session.key)
        except (SnapshotError, SessionNotFoundError) as error:
            _log.warning("a snapshot cannot be read (%s); its session is replayed", error)
            await self.discard(session)
            return None

    async def discard(self, session: Session) -> None:
        """Delete the snapshot of a session, if there is one."""
        if session.key in self._shelved:
            self._forget(session.key)
            await asyncio.to_thread(self._store.drop_snapshot, session.key)

    async def follow(self, session: Session) -> None:
        """Look up the snapshot of a session, which another process may have written."""
        record = await asyncio.to_thread(self._store.snapshot_record, session.key)
        self._forget(session.key)
        if record is not None:
            self._shelved[session.key] = (record.num_tokens, record.nbytes)
            self.nbytes += record.nbytes

    def taken_back(self, session_id: str, num_tokens: int) -> None:
        """Note that the store deleted a snapshot of more tokens, as `commit_turn` does."""
        shelved = self._shelved.get(session_id)
        if shelved is not None and shelved[0] > num_tokens:
            self._forget(session_id)

    def _forget(self, session_id: str) -> None:
        shelved = self._shelved.pop(session_id, None)
        if shelved is not None:
            self.nbytes -= shelved[1]

    async def _reserve(self, session_id: str, num_bytes: int) -> bool:
        """Reserve bytes; the oldest snapshots of other sessions go if there is no room."""
        if num_bytes > self._max_bytes:
            return False
        # The session's own, which the new one replaces, goes last.
        for other in sorted(self._shelved, key=lambda key: key == session_id):
            if self.nbytes + num_bytes <= self._max_bytes:
                break
            self._forget(other)
            await asyncio.to_thread(self._store.drop_snapshot, other)
        if self.nbytes + num_bytes > self._max_bytes:
            return False
        self.nbytes += num_bytes
        return True
