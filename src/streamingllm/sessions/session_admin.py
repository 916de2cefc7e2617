"""Manage sessions: create, list, read, rewind, fork, export, delete."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from streamingllm.engine import AsyncEngine
from streamingllm.errors import InputError, SessionNotFoundError
from streamingllm.models import LanguageModel
from streamingllm.sessions.branching import Branching
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_archive import export_session, import_session
from streamingllm.sessions.session_table import SessionTable
from streamingllm.sessions.session_types import SessionDetail, SessionInfo, SessionPage
from streamingllm.sessions.snapshot_shelf import SnapshotShelf
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.store import SessionSummary
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import SessionView

_MAX_LIMIT = 1000


class SessionAdmin:
    """Change sessions apart from their turns; see `SessionManager`.

    Args:
        engine: of the running sessions.
        lm: its model and tokenizer.
        store: of durable sessions.
        table: sessions in memory.
        branching: makes sessions and branches.
        residency: tiers of sessions.
        shelf: snapshots on disk.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        lm: LanguageModel,
        store: SqlStore,
        table: SessionTable,
        branching: Branching,
        residency: ResidencyPolicy,
        shelf: SnapshotShelf,
    ) -> None:
        self.engine = engine
        self.lm = lm
        self.store = store
        self._table = table
        self._branching = branching
        self._residency = residency
        self._shelf = shelf

    async def stop(self, owner: str, session_id: str) -> bool:
        """End the running answer and keep what is there; tell whether there was one."""
        session = self._table.in_memory(owner, session_id)
        if session is None or not session.is_running or session.place.stream_id is None:
            return False
        with contextlib.suppress(InputError):  # it has just failed
            await self.engine.abort(session.place.stream_id)
        return True

    async def create(
        self,
        owner: str,
        *,
        session_id: str | None = None,
        system_prompt: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        eviction: Literal["token", "turn"] | None = None,
        messages: Sequence[Message] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionView:
        """Create a session; its messages are fed with the first turn.

        Raises:
            SessionConflictError: there is one of that id.
        """
        session = await self._branching.create(
            owner,
            session_id,
            system_prompt=system_prompt,
            tools=tools,
            eviction=eviction,
            metadata=metadata,
        )
        async with session.lock:
            session.append_unfed(messages)
            await self._table.commit(session)
        return session.view()

    async def append(
        self, owner: str, session_id: str, messages: Sequence[Message]
    ) -> tuple[Message, ...]:
        """Append messages without an answer; they are fed with the next turn."""
        async with self._held(owner, session_id) as session:
            session.append_unfed(messages)
            await self._table.commit(session)
            first = len(session.transcript) - len(messages)
            return tuple(session.transcript[i] for i in range(first, len(session.transcript)))

    async def get(self, owner: str, session_id: str) -> SessionDetail:
        """Return a session with its messages."""
        session = await self._table.get(owner, session_id)
        info = await self._info(session)
        branches: Sequence[SessionSummary] = ()
        if session.is_stored:
            branches = await asyncio.to_thread(self.store.branches, session.key, owner)
        return SessionDetail(
            info,
            session.view(),
            tuple(session.transcript),
            session.system_prompt,
            session.facts,
            session.tools,
            session.eviction,
            self._residency.tier(session),
            session.is_running,
            tuple(info_of(summary) for summary in branches),
        )

    async def messages(self, owner: str, session_id: str) -> tuple[Message, ...]:
        """Return the messages of a session, the system prompt first."""
        return tuple((await self._table.get(owner, session_id)).transcript)

    async def list(
        self, owner: str, *, limit: int = 20, after: str | None = None, query: str | None = None
    ) -> SessionPage:
        """Return sessions that changed last, those whose messages match a query if one is given."""
        if not 1 <= limit <= _MAX_LIMIT:
            raise InputError(f"limit={limit} is not 1 to {_MAX_LIMIT}; ask for fewer at a time")
        found = await asyncio.to_thread(
            self.store.list, owner, limit=limit + 1, after=after, query=query
        )
        last = found[limit - 1].cursor if len(found) > limit else None
        return SessionPage(tuple(map(info_of, found[:limit])), last)

    async def update(self, owner: str, session_id: str, metadata: Mapping[str, Any]) -> SessionInfo:
        """Replace the metadata of a session."""
        async with self._held(owner, session_id) as session:
            session.metadata = dict(metadata)
            if session.is_stored:
                await asyncio.to_thread(
                    self.store.update_metadata, session.key, owner, session.metadata
                )
            return await self._info(session)

    async def rewind(
        self,
        owner: str,
        session_id: str,
        *,
        message_id: str | None = None,
        num_turns: int | None = None,
    ) -> SessionView:
        """Take back what follows a message, or the last turns, as if they had never been."""
        async with self._held(owner, session_id) as session:
            session.truncate(_num_kept(session, message_id, num_turns))
            await self._commit_changed(session)
            return session.view()

    async def fork(
        self, owner: str, session_id: str, *, message_id: str | None = None
    ) -> SessionView:
        """Make a branch that shares the messages up to one, or all; return its view."""
        async with self._held(owner, session_id) as session:
            num_messages = _num_kept(session, message_id, None if message_id else 0)
            branch = await self._branching.fork(session, num_messages, is_stored=session.is_stored)
            await self._commit_changed(branch)
        return branch.view()

    async def delete_message(self, owner: str, session_id: str, message_id: str) -> SessionView:
        """Cut one message out; the tokens after it are fed again."""
        async with self._held(owner, session_id) as session:
            await self._branching.cut_out(session, message_id)
            await self._commit_changed(session)
            return session.view()

    async def delete(self, owner: str, session_id: str) -> None:
        """Delete a session from every tier, with its responses.

        Raises:
            SessionNotFoundError: the owner has none of that id.
        """
        await self.stop(owner, session_id)
        async with self._held(owner, session_id) as session:
            await self._discard(session)

    async def export(self, owner: str, session_id: str) -> bytes:
        """Return a session as a JSON document: messages, token ids and settings."""
        session = await self._table.get(owner, session_id)
        async with session.lock:
            return export_session(session, self.lm)

    async def import_(self, owner: str, data: bytes) -> SessionView:
        """Create a session from what `export` returned, under a new id.

        Raises:
            InputError: the data is no such document.
        """
        archive = import_session(data, self.lm)
        session = await self._branching.create(owner, metadata=archive.metadata)
        async with session.lock:
            try:
                await self._branching.fill(session, archive)
                await self._table.commit(session)
            except BaseException:
                await self._discard(session)
                raise
        return session.view()

    @contextlib.asynccontextmanager
    async def _held(self, owner: str, session_id: str) -> AsyncGenerator[Session, None]:
        while True:
            session = await self._table.get(owner, session_id)
            async with session.lock:
                if not session.is_deleted:
                    yield session
                    return

    async def _commit_changed(self, session: Session) -> None:
        await self._table.commit(session)
        self._shelf.taken_back(session.key, len(session.token_log))

    async def _discard(self, session: Session) -> None:
        self._table.forget(session)
        await self._residency.drop(session)
        self._shelf.taken_back(session.key, -1)
        if session.is_stored:
            with contextlib.suppress(SessionNotFoundError):
                await asyncio.to_thread(self.store.delete, session.key, session.owner)

    async def _info(self, session: Session) -> SessionInfo:
        if session.is_stored:
            return info_of(await asyncio.to_thread(self.store.summary, session.key, session.owner))
        return SessionInfo(
            session.id, 0.0, 0.0, len(session.transcript), len(session.token_log), session.metadata
        )


def _num_kept(session: Session, message_id: str | None, num_turns: int | None) -> int:
    """Return how many messages stay."""
    if (message_id is None) == (num_turns is None):
        raise InputError("message_id and num_turns: pass one of them")
    if message_id is not None:
        number = session.transcript.number_of(message_id)
        if number is None:
            raise InputError(f"message_id={message_id!r} is not in the session; list its messages")
        return number + 1
    so_far = session.transcript.num_turns
    if num_turns is None or not 0 <= num_turns <= so_far:
        raise InputError(f"num_turns={num_turns} is not 0 to {so_far}, the turns so far")
    return session.transcript.turn_start(-num_turns) if num_turns else len(session.transcript)


def info_of(summary: SessionSummary) -> SessionInfo:
    """Describe a stored session as in a list."""
    return SessionInfo(
        summary.id.partition("/")[2],
        summary.created_seconds,
        summary.updated_seconds,
        summary.num_messages,
        summary.num_tokens,
        summary.metadata,
        None if summary.parent_id is None else summary.parent_id.partition("/")[2],
        summary.num_shared_messages,
    )
