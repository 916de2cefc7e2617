"""Sessions by id: those in memory, and those that the store brings back."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from streamingllm.errors import InputError, SessionConflictError, SessionNotFoundError
from streamingllm.sessions.facts import Fact
from streamingllm.sessions.session import Session, session_key
from streamingllm.sessions.session_ownership import SessionOwnership
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.store import StoredSession, TurnCommit
from streamingllm.sessions.turn_attempt import new_id

_ID = re.compile(r"[\x21-\x7e]{1,200}")


def new_session_id() -> str:
    """Return an id that nobody can guess."""
    return new_id("sess_")


def check_session_id(session_id: str) -> None:
    """Refuse an id that is no word of visible ASCII characters.

    Raises:
        InputError: it is empty, too long, or has other characters.
    """
    if not _ID.fullmatch(session_id):
        raise InputError(
            f"session_id={session_id[:40]!r} is no id; use 1 to 200 visible ASCII characters"
        )


class SessionTable:
    """Hold the sessions that are in use, and load others from the store.

    Args:
        store: of durable sessions.
        cache_size: tokens that a stream can see.
        max_resting: sessions without a stream that stay in memory.
        ownership: of sessions, where several processes share the store.
    """

    def __init__(
        self,
        store: SqlStore,
        cache_size: int,
        max_resting: int = 256,
        ownership: SessionOwnership | None = None,
    ) -> None:
        self._store = store
        self.ownership = ownership
        self._cache_size = cache_size
        self._max_resting = max_resting
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}

    def __iter__(self) -> Any:
        return iter(list(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def in_memory(self, owner: str, session_id: str) -> Session | None:
        """Return a session if it is in memory."""
        return self._sessions.get(session_key(owner, session_id))

    async def get(self, owner: str, session_id: str) -> Session:
        """Return a session.

        Raises:
            SessionNotFoundError: the owner has none of that id.
        """
        key = session_key(owner, session_id)
        lock = self._loading.setdefault(key, asyncio.Lock())
        async with lock:
            try:
                session = await self._current(key)
                if session is None:
                    stored = await asyncio.to_thread(self._stored, owner, session_id)
                    session = self._sessions.get(key)  # if it was created meanwhile
                if session is None:
                    session = _loaded(owner, session_id, stored)
                    session.cache_size = self._cache_size
                    self._sessions[key] = session
                    if self.ownership is not None:
                        await self.ownership.on_loaded(session)
            finally:
                self._loading.pop(key, None)
        self._sessions.move_to_end(key)
        self._shrink()
        return session

    async def _current(self, key: str) -> Session | None:
        """Return a session in memory if it is as it is stored; its lease is held then."""
        session = self._sessions.get(key)
        if self.ownership is None or (session is not None and not session.is_stored):
            return session
        if session is None:
            with contextlib.suppress(SessionNotFoundError):  # whoever loads it says so
                await self.ownership.hold(key)
            return None
        try:
            if await self.ownership.is_current(session):
                return session
        except SessionNotFoundError:
            pass
        self.forget(session)
        return None

    async def own(self, session: Session) -> None:
        """Take the lease of a session that was stored just now."""
        if self.ownership is not None:
            session.epoch = await self.ownership.hold(session.key)

    async def create(
        self,
        owner: str,
        session_id: str | None = None,
        *,
        is_stored: bool = True,
        **fields: Any,
    ) -> Session:
        """Create an empty session.

        Raises:
            SessionConflictError: the owner has one of that id.
        """
        session = Session(session_id or new_session_id(), owner, **fields)
        session.cache_size = self._cache_size
        check_session_id(session.id)
        if session.key in self._sessions:
            raise SessionConflictError(f"session_id={session.id!r} exists; use another id")
        self._sessions[session.key] = session
        if is_stored:
            async with session.lock:  # who finds it now waits until it is stored
                await self._store_new(session)
        self._shrink()
        return session

    async def _store_new(self, session: Session) -> None:
        try:
            session.epoch = await asyncio.to_thread(
                self._store.create,
                session.key,
                session.metadata,
                owner=session.owner,
                group=session.group,
                settings=session.settings(),
            )
            await self.own(session)
        except BaseException:
            self.forget(session)
            raise

    def add(self, session: Session) -> None:
        """Enter a session that its maker has stored."""
        self._sessions[session.key] = session
        self._shrink()

    async def commit(self, session: Session) -> None:
        """Make all that the store does not have durable.

        Raises:
            SessionConflictError: another writer has changed the session.
            SnapshotError: the store cannot be written.
        """
        num_messages, num_tokens = len(session.transcript), len(session.token_log)
        if session.epoch is not None:
            turn = TurnCommit(
                session.num_stored_messages,
                session.num_stored_tokens,
                tuple(_since(session, session.num_stored_messages)),
                session.token_log[session.num_stored_tokens :],
                settings=session.settings(),
                num_pinned_tokens=session.num_pinned_tokens,
            )
            session.epoch = await asyncio.to_thread(
                self._store.commit_turn, session.key, session.epoch, turn
            )
        session.num_stored_messages, session.num_stored_tokens = num_messages, num_tokens

    def forget(self, session: Session) -> None:
        """Let go of a session that was deleted, or that nobody can name."""
        session.is_deleted = True
        if self.holds(session):
            del self._sessions[session.key]

    def holds(self, session: Session) -> bool:
        """Return whether this is the session of its id; another may have been loaded since."""
        return self._sessions.get(session.key) is session

    def find_volatile(
        self, owner: str, group: str, digests: Sequence[bytes]
    ) -> list[tuple[Session, int]]:
        """Return sessions that no store has, and how much of a history each knows."""
        found = []
        for session in self.volatile:
            if session.owner == owner and session.group == group:
                own = session.history_digests()
                pairs = zip(own, digests, strict=False)
                num_known = sum(a == b for a, b in pairs)  # a chain: equal up to a point
                if num_known:
                    found.append((session, num_known))
        return found

    @property
    def volatile(self) -> list[Session]:
        """Sessions that no store has, the one that was used least recently first."""
        return [session for session in self._sessions.values() if not session.is_stored]

    def _stored(self, owner: str, session_id: str) -> StoredSession:
        try:
            return self._store.get(session_key(owner, session_id), owner)
        except SessionNotFoundError:
            raise SessionNotFoundError(f"session_id={session_id!r} is not there") from None

    def _shrink(self) -> None:
        """Let go of the resting sessions that were used least recently.

        Only those count that can be let go. Else many that cannot, such as those no store has,
        would push out each session that is loaded, before whoever asked for it has locked it.
        """
        if len(self._sessions) <= self._max_resting:
            return
        resting = [session for session in self._sessions.values() if _can_be_let_go(session)]
        for session in resting[: max(0, len(resting) - self._max_resting)]:
            del self._sessions[session.key]


def _can_be_let_go(session: Session) -> bool:
    is_resting = session.place.stream_id is None and session.place.state is None
    is_clean = session.is_stored and session.num_stored_tokens == len(session.token_log)
    return is_resting and is_clean and session.lock.is_free


def _since(session: Session, number: int) -> list[Any]:
    return [session.transcript[i] for i in range(number, len(session.transcript))]


def _loaded(owner: str, session_id: str, stored: StoredSession) -> Session:
    settings: Mapping[str, Any] = stored.summary.settings
    session = Session(
        session_id,
        owner,
        epoch=stored.summary.epoch,
        group=stored.summary.group,
        system_prompt=settings.get("system_prompt", ""),
        facts=tuple(Fact(**fact) for fact in settings.get("facts", ())),
        tools=tuple(settings.get("tools", ())),
        variables=settings.get("variables", {}),
        eviction=settings.get("eviction", "token"),
        num_pinned_tokens=stored.summary.num_pinned_tokens,
        num_unfed=settings.get("num_unfed", 0),
        is_feeding=settings.get("is_feeding", False),
        transcript=stored.transcript,
        token_log=stored.token_log,
        metadata=dict(stored.summary.metadata),
        reminded_seconds=settings.get("reminded", 0.0),
        num_stored_messages=len(stored.transcript),
        num_stored_tokens=len(stored.token_log),
        used_seconds=time.monotonic(),
    )
    session.place.num_evicted = settings.get("num_forgotten", 0)
    return session
