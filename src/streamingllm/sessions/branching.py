"""Make sessions and branches of sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from streamingllm.errors import InputError, SessionConflictError, SessionNotFoundError
from streamingllm.sessions.pinning import Pinning, said_in
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_archive import SessionArchive
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.session_table import SessionTable, new_session_id
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.turn import TurnRequest
from streamingllm.sessions.turn_attempt import current_attempt

_SYSTEM = "system"
Tools = Sequence[Mapping[str, Any]]


class Branching:
    """Create and fork sessions; every one begins with what it pins.

    Args:
        table: sessions in memory.
        store: of durable ones.
        pinning: puts what is pinned first.
        residency: copies streams.
        settings: the operator's.
        cache_size: tokens that a stream can see.
    """

    def __init__(
        self,
        table: SessionTable,
        store: SqlStore,
        pinning: Pinning,
        residency: ResidencyPolicy,
        settings: SessionSettings,
        *,
        cache_size: int,
    ) -> None:
        self._table = table
        self._store = store
        self._pinning = pinning
        self._residency = residency
        self._settings = settings
        self._cache_size = cache_size

    async def create(
        self,
        owner: str,
        session_id: str | None = None,
        *,
        group: str = "",
        system_prompt: str | None = None,
        tools: Tools | None = None,
        variables: Mapping[str, Any] | None = None,
        eviction: Literal["token", "turn"] | None = None,
        metadata: Mapping[str, Any] | None = None,
        is_stored: bool = True,
    ) -> Session:
        """Create a session that has seen its system prompt only.

        Raises:
            InputError: the system prompt and the tools are longer than what may be pinned.
            SessionConflictError: the owner has a session of that id.
            UnsupportedFeatureError: the template has no place for them.
        """
        # Checked before anything is stored, so that a refusal leaves nothing behind.
        draft = Session(session_id or new_session_id(), owner)
        await self._pinning.pin(
            draft,
            self._settings.system_prompt if system_prompt is None else system_prompt,
            tuple(tools or ()),
            dict(variables or {}),
        )
        return await self._table.create(
            owner,
            draft.id,
            is_stored=is_stored,
            group=group,
            system_prompt=draft.system_prompt,
            tools=draft.tools,
            variables=draft.variables,
            eviction=eviction or self._settings.eviction,
            num_pinned_tokens=draft.num_pinned_tokens,
            transcript=draft.transcript,
            token_log=draft.token_log,
            metadata=dict(metadata or {}),
        )

    async def fork(
        self,
        session: Session,
        num_messages: int,
        *,
        session_id: str | None = None,
        is_stored: bool = True,
    ) -> Session:
        """Return a branch that shares the first messages; the session's lock is held."""
        branch = Session(
            session_id or new_session_id(),
            session.owner,
            group=session.group,
            system_prompt=session.system_prompt,
            facts=session.facts,
            tools=session.tools,
            variables=session.variables,
            eviction=session.eviction,
            num_pinned_tokens=session.num_pinned_tokens,
            num_unfed=session.num_unfed,
            is_feeding=session.is_feeding,
            cache_size=session.cache_size,
            transcript=session.transcript.fork(),
            token_log=session.token_log.fork(),
            metadata=dict(session.metadata),
            reminded_seconds=session.reminded_seconds,
            num_stored_messages=session.num_stored_messages,
            num_stored_tokens=session.num_stored_tokens,
        )
        branch.place.num_evicted = session.num_forgotten_tokens
        branch.place.num_streamed = branch.place.num_agreeing = 0
        branch.truncate(num_messages)
        if session.epoch is not None and is_stored:
            try:
                await self._store_branch(session, branch)
            except SessionConflictError:
                if current_attempt() is None:
                    raise
                return await self._table.get(branch.owner, branch.id)  # of an earlier attempt
        await self._residency.branch(session, branch)
        self._table.add(branch)
        return branch

    async def _store_branch(self, session: Session, branch: Session) -> None:
        branch.epoch = await asyncio.to_thread(
            self._store.fork,
            session.key,
            session.owner,
            branch.key,
            branch.num_stored_messages,
            branch.num_stored_tokens,
            settings=branch.settings(),
        )
        await self._table.own(branch)

    async def keep_old_branch(self, session: Session) -> Session:
        """Keep what an edit is going to replace as a branch of its own, and return that."""
        return await self.fork(session, len(session.transcript), is_stored=session.is_stored)

    async def discard(self, branch: Session) -> None:
        """Forget a branch that nobody knows of."""
        self._table.forget(branch)
        await self._residency.drop(branch)
        if branch.is_stored:
            await asyncio.to_thread(self._store.delete, branch.key, branch.owner)

    async def cut_out(self, session: Session, message_id: str) -> None:
        """Cut one message out; the rest of its turn, and later ones, are fed again.

        Raises:
            InputError: there is no such message, or it is the pinned system prompt.
        """
        number = session.transcript.number_of(message_id)
        if number is None:
            raise InputError(f"message_id={message_id!r} is not in the session; list its messages")
        if number == 0 and session.transcript[0].role == _SYSTEM:
            raise InputError(
                f"message_id={message_id!r} is the system prompt; send another one instead"
            )
        rest = [session.transcript[i] for i in range(number + 1, len(session.transcript))]
        first = min(number, len(session.transcript) - session.num_unfed)
        starts = (session.transcript.turn_start(n) for n in range(session.transcript.num_turns))
        first = max((start for start in starts if start <= first), default=first)
        before = [session.transcript[i] for i in range(first, number)]
        session.truncate(first)
        session.append_unfed([*before, *rest])

    async def fill(self, session: Session, archive: SessionArchive) -> None:
        """Let a new session say what an archive says."""
        draft = Session(session.id, session.owner, facts=archive.facts)
        pinned = (archive.system_prompt, archive.tools, dict(archive.variables))
        await self._pinning.pin(draft, *pinned)
        session.system_prompt, session.tools = draft.system_prompt, draft.tools
        session.facts = draft.facts
        session.variables, session.eviction = draft.variables, archive.eviction
        session.metadata = dict(archive.metadata)
        session.num_pinned_tokens = draft.num_pinned_tokens
        session.token_log, session.transcript = draft.token_log, draft.transcript
        num_pinned = draft.num_pinned_tokens
        fits = list(archive.token_ids[:num_pinned]) == draft.token_log[:num_pinned].tolist()
        said = said_in(archive.messages)
        if fits and archive.token_ids:
            session.token_log.extend(archive.token_ids[num_pinned:])
            for message in said[: len(said) - archive.num_unfed]:
                session.transcript.append(message)
            said = said[len(said) - archive.num_unfed :]
        session.append_unfed(said)

    async def draft(self, request: TurnRequest) -> Session:
        """Return a session like the one that a request goes on with, to count its tokens.

        Raises:
            SessionNotFoundError: the request names a message of a session that is not there.
        """
        if request.identity.kind in ("session", "point"):
            try:
                return await self._table.get(request.owner, request.identity.id)
            except SessionNotFoundError:
                if request.identity.kind == "point":
                    raise
        session = Session(new_session_id(), request.owner, cache_size=self._cache_size)
        wanted = self._settings.system_prompt
        if request.system_prompt is not None:
            wanted = request.system_prompt
        await self._pinning.pin(
            session, wanted, tuple(request.tools or ()), dict(request.template_variables)
        )
        return session
