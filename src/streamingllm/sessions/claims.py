"""Find the session that a request goes on with, and claim it for a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from streamingllm.errors import (
    InputError,
    SessionConflictError,
    SessionNotFoundError,
    StaleLeaseError,
)
from streamingllm.sessions.branching import Branching
from streamingllm.sessions.checkpoint import Checkpoint
from streamingllm.sessions.history_digest import history_digests
from streamingllm.sessions.matching import Alignment, align, num_system_messages
from streamingllm.sessions.pinning import Pinning
from streamingllm.sessions.repeated_turn import alignment_again, journalled_turn
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_table import SessionTable, new_session_id
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import TurnRequest


@dataclass
class Claim:
    """Hold a session whose lock is held, and what is new to it.

    Args:
        session: to go on with.
        new: messages to feed.
        has_begun: set it once the turn takes itself back; until then the claim does.
    """

    session: Session
    new: tuple[Message, ...]
    has_begun: bool = False


class Claims:
    """Resolve the identity of a request to a session; see `Identity`.

    Args:
        table: sessions in memory.
        store: finds sessions by their history.
        branching: makes branches.
        pinning: replaces what is pinned.
        check: refuses a request whose turn cannot begin, given the messages that are new.
    """

    def __init__(
        self,
        table: SessionTable,
        store: SqlStore,
        branching: Branching,
        pinning: Pinning,
        check: Callable[[TurnRequest, tuple[Message, ...]], Awaitable[None]],
    ) -> None:
        self._table = table
        self._store = store
        self._branching = branching
        self._pinning = pinning
        self._check = check

    @asynccontextmanager
    async def claim(self, request: TurnRequest) -> AsyncIterator[Claim]:
        """Lock the session of a request, at the place where it goes on.

        Raises:
            SessionNotFoundError: the request names a session or a message that is not there.
            InputError: the request has no message.
        """
        session, alignment = await self._begun(request)
        claim = Claim(session, alignment.new)
        try:
            # What is refused here leaves the session as it was.
            await self._check(request, alignment.new)
            pinned = await self._pinning.pinned_anew(session, request)
            async with self._changed(claim, request, alignment, pinned):
                yield claim
        finally:
            try:
                if self._table.ownership is not None:
                    await asyncio.shield(self._table.ownership.end_turn(session))
            finally:
                session.lock.release()

    async def _begun(self, request: TurnRequest) -> tuple[Session, Alignment]:
        """Lock a session; where several processes share the store, compare its lease as well."""
        while True:
            session, alignment = await self._locked(request)
            if self._table.ownership is None:
                return session, alignment
            try:
                turn = journalled_turn(request, session, alignment)
                await self._table.ownership.begin_turn(session, turn)
            except StaleLeaseError:  # the session is read again
                session.lock.release()
            except BaseException:
                session.lock.release()
                raise
            else:
                return session, alignment

    @asynccontextmanager
    async def _changed(
        self, claim: Claim, request: TurnRequest, alignment: Alignment, pinned: Session | None
    ) -> AsyncIterator[None]:
        """Change a session as a request asks; take that back if its turn never begins."""
        session = claim.session
        is_cut = alignment.num_kept < len(session.transcript)
        if not is_cut and pinned is None:
            await self._pinning.adopt(session, request, pinned)
            yield
            return
        before, old = Checkpoint.of(session), None
        try:
            if alignment.is_edit and is_cut:
                old = await self._branching.keep_old_branch(session)
            if is_cut:
                session.truncate(alignment.num_kept)
            await self._pinning.adopt(session, request, pinned)
            yield
        except BaseException:
            if not claim.has_begun:
                before.restore(session)
                if old is not None:
                    await asyncio.shield(self._branching.discard(old))
            raise

    async def _locked(self, request: TurnRequest) -> tuple[Session, Alignment]:
        if (repeated := await self._repeated(request)) is not None:
            return repeated
        kind = request.identity.kind
        if request.is_side_task or kind == "new":
            session = await self._created(request)
            await session.lock.acquire()
            return session, Alignment(len(session.transcript), request.messages)
        if kind == "session":
            return await self._named(request)
        if kind == "point":
            return await self._at_point(request)
        return await self._matched(request)

    async def _repeated(self, request: TurnRequest) -> tuple[Session, Alignment] | None:
        """Lock the session of an earlier attempt at a turn, at the place where that began."""
        attempt, ownership = request.attempt, self._table.ownership
        if attempt is None or ownership is None or not attempt.may_be_journalled:
            return None
        turn = await ownership.journalled(attempt.turn_id)
        if turn is None:
            return None
        owner, _, session_id = turn.session_id.partition("/")
        if owner != (request.owner or "-"):
            raise SessionNotFoundError(f"session_id={session_id!r} is not there")
        session = await self._held(request.owner, session_id)
        try:
            return session, alignment_again(turn, request, session)
        except BaseException:
            session.lock.release()
            raise

    async def _held(self, owner: str, session_id: str) -> Session:
        """Return a session whose lock is held now."""
        while True:
            session = await self._table.get(owner, session_id)
            await session.lock.acquire()
            if not session.is_deleted:
                return session
            session.lock.release()

    async def _named(self, request: TurnRequest) -> tuple[Session, Alignment]:
        while True:
            try:
                session = await self._table.get(request.owner, request.identity.id)
            except SessionNotFoundError:
                try:
                    session = await self._created(request, request.identity.id)
                except SessionConflictError:
                    continue  # made by another request meanwhile
            await session.lock.acquire()
            if not session.is_deleted:
                return session, align(session.transcript, request.messages)
            session.lock.release()

    async def _at_point(self, request: TurnRequest) -> tuple[Session, Alignment]:
        session = await self._held(request.owner, request.identity.id)
        number = session.transcript.number_of(request.identity.after)
        if number is None:
            session.lock.release()
            raise SessionNotFoundError(
                f"message_id={request.identity.after!r} is not there any more; name a later one"
            )
        return await self._at(session, number + 1, request, request.messages)

    async def _matched(self, request: TurnRequest) -> tuple[Session, Alignment]:
        group = request.identity.id if request.identity.kind == "chat" else ""
        digests = history_digests(request.messages[:-1])
        for found, num_known in await self._candidates(request, group, digests):
            session = await self._current(found)
            if session is None:
                continue
            first = num_system_messages(session.transcript)
            kept = first + num_known
            known = [
                session.transcript[i] for i in range(first, min(kept, len(session.transcript)))
            ]
            if session.is_deleted or history_digests(known)[-1:] != [digests[num_known - 1]]:
                session.lock.release()
                continue
            return await self._at(session, kept, request, request.messages[num_known:])
        session = await self._created(request, group=group)
        await session.lock.acquire()
        return session, Alignment(len(session.transcript), request.messages)

    async def _current(self, session: Session) -> Session | None:
        """Lock a session, or the one that was loaded in its place; return None if it is gone."""
        while True:
            await session.lock.acquire()
            if session.is_deleted or self._table.holds(session):
                return session
            session.lock.release()
            try:
                session = await self._table.get(session.owner, session.id)
            except SessionNotFoundError:
                return None

    async def _candidates(
        self, request: TurnRequest, group: str, digests: list[bytes]
    ) -> list[tuple[Session, int]]:
        """Return sessions that know the longest beginning of a history, the best one first."""
        if not digests:
            return []
        found: list[tuple[Session, int]] = []
        for key, num_known in await asyncio.to_thread(
            self._store.find_prefix, request.owner, digests, group
        ):
            try:
                found.append(
                    (await self._table.get(request.owner, key.partition("/")[2]), num_known)
                )
            except SessionNotFoundError:
                continue
        found += self._table.find_volatile(request.owner, group, digests)

        def rank(candidate: tuple[Session, int]) -> tuple[int, bool, bool]:
            session, num_known = candidate
            is_end = len(session.transcript) == num_known + num_system_messages(session.transcript)
            return (-num_known, not self._pinning.fits(session, request), not is_end)

        longest = max((num_known for _, num_known in found), default=0)
        return sorted((c for c in found if c[1] == longest), key=rank)

    async def _at(
        self, session: Session, num_kept: int, request: TurnRequest, new: tuple[Message, ...]
    ) -> tuple[Session, Alignment]:
        """Go on in place at the end of a session, else on a branch; the session is locked."""
        if num_kept >= len(session.transcript):
            return session, Alignment(num_kept, tuple(new))
        try:
            branch = await self._branching.fork(session, num_kept, is_stored=request.is_stored)
        finally:
            session.lock.release()
        await branch.lock.acquire()
        return branch, Alignment(num_kept, tuple(new))

    async def _created(
        self, request: TurnRequest, session_id: str | None = None, group: str = ""
    ) -> Session:
        if not request.messages:
            raise InputError("messages is empty; send at least one message")
        new_id = session_id or new_session_id()
        try:
            return await self._branching.create(
                request.owner,
                new_id,
                group=group,
                system_prompt=request.system_prompt,
                tools=request.tools,
                variables=request.template_variables,
                eviction=request.eviction,
                metadata=request.metadata,
                is_stored=request.is_stored and not request.is_side_task,
            )
        except SessionConflictError:
            if session_id is not None or request.attempt is None:
                raise
            return await self._table.get(request.owner, new_id)  # of an earlier attempt


def without_answer(request: TurnRequest) -> TurnRequest:
    """Return the request as one that leaves its session as it is."""
    return replace(request, is_side_task=True)
