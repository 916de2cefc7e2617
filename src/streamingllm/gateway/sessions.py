"""Manage the sessions of a log: list, search, read, create, forget, delete."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamingllm.errors import InputError, SessionConflictError
from streamingllm.gateway.session_log import SessionLog, SessionSettings
from streamingllm.sessions.erasure import without_title
from streamingllm.sessions.session import session_key, view_of
from streamingllm.sessions.session_admin import info_of
from streamingllm.sessions.session_table import check_session_id, new_session_id
from streamingllm.sessions.session_types import SessionDetail, SessionInfo, SessionPage
from streamingllm.sessions.store import SessionSummary
from streamingllm.sessions.transcript import Message, Transcript

_SYSTEM_MESSAGE_ID = "system_prompt"


class GatewaySessions:
    """Read and change sessions apart from their turns; all are those of one owner.

    Args:
        log: of the sessions.
    """

    def __init__(self, log: SessionLog) -> None:
        self._log = log

    def list(self, owner: str, *, limit: int, after: str | None, query: str | None) -> SessionPage:
        """Return the sessions that changed last; with a query, those that have its words."""
        store = self._log.store
        with self._log.reading():
            found = store.list(owner, limit=limit + 1, after=after, query=query)
            last = found[limit - 1].cursor if len(found) > limit else None
            return SessionPage(tuple(map(self._info, found[:limit])), last)

    def get(self, owner: str, session_id: str, *, is_running: bool = False) -> SessionDetail:
        """Return a session with its messages, and what its last turn saw of them.

        Raises:
            SessionNotFoundError: the owner has none of that id.
        """
        with self._log.reading():
            summary = self._log.summary(owner, session_id)
            settings = SessionSettings.of(summary)
            stored = self._log.store.get(summary.id, owner).transcript
            sizes = self._log.seen.sizes(summary.id)
            pinned = self._log.num_pinned_tokens(settings.system_prompt)
            branches = tuple(map(self._info, self._log.store.branches(summary.id, owner)))
            info = self._info(summary)
        transcript = Transcript()
        if settings.system_prompt:
            message = Message.of_text("system", settings.system_prompt)
            transcript.append(replace(message, id=_SYSTEM_MESSAGE_ID, stop=pinned))
        first = pinned
        for message, size in zip(stored, sizes, strict=True):
            transcript.append(replace(message, first=first, stop=first + size))
            first += size
        view = view_of(
            session_id,
            transcript,
            num_seen_tokens=first,
            num_pinned_tokens=pinned,
            num_forgotten_tokens=sum(sizes[: settings.num_forgotten]),
        )
        return SessionDetail(
            replace(info, num_messages=len(transcript)),
            view,
            tuple(transcript),
            settings.system_prompt,
            facts=(),
            tools=(),
            eviction="turn",
            tier="tail",
            is_running=is_running,
            branches=branches,
        )

    def create(
        self,
        owner: str,
        session_id: str | None,
        *,
        system_prompt: str,
        messages: Sequence[Message],
        metadata: Mapping[str, Any],
    ) -> str:
        """Create a session and return its id.

        Raises:
            SessionConflictError: there is one of that id.
            InputError: the id has characters that no address can carry.
        """
        name = session_id or new_session_id()
        check_session_id(name)
        with self._log.transaction():
            if self._log.find(owner, name) is not None:
                raise SessionConflictError(f"session_id={name!r} exists; use another id")
            settings = SessionSettings(system_prompt)
            self._log.commit(owner, name, 0, messages, settings, metadata=metadata)
        return name

    def append(
        self, owner: str, session_id: str, messages: Sequence[Message]
    ) -> tuple[SessionDetail, Sequence[Message]]:
        """Append messages without an answer; return the session and those messages in it."""
        with self._log.transaction():
            summary = self._log.summary(owner, session_id)
            settings = SessionSettings.of(summary)
            self._log.commit(owner, session_id, summary.num_messages, messages, settings)
            detail = self.get(owner, session_id)
        return detail, detail.messages[len(detail.messages) - len(messages) :]

    def update(self, owner: str, session_id: str, metadata: Mapping[str, Any]) -> SessionInfo:
        """Replace the metadata of a session."""
        with self._log.transaction():
            key = self._log.summary(owner, session_id).id
            self._log.store.update_metadata(key, owner, metadata)
            return self._info(self._log.summary(owner, session_id))

    def delete(self, owner: str, session_id: str) -> None:
        """Delete a session with all that the memory has of it.

        Raises:
            SessionNotFoundError: the owner has none of that id.
        """
        with self._log.transaction():
            self._log.summary(owner, session_id)
            self._log.store.delete(session_key(owner, session_id), owner)

    def forget(self, owner: str, session_id: str, message_ids: Collection[str]) -> None:
        """Erase messages of a session and of its branches, and titles made of them.

        Raises:
            InputError: the session has none of an id.
            SessionNotFoundError: the owner has no session of that id.
        """
        with self._log.transaction():
            summary = self._log.summary(owner, session_id)
            stored = self._log.store.get(summary.id, owner).transcript
            missing = {*message_ids} - {message.id for message in stored}
            if missing:
                raise InputError(
                    f"message_id={min(missing)[:128]!r} is not in the session; list its messages"
                )
            for one in (summary, *self._log.store.branches(summary.id, owner)):
                self._erase(one, frozenset(message_ids))

    def _erase(self, summary: SessionSummary, message_ids: Collection[str]) -> None:
        messages = [*self._log.store.get(summary.id).transcript]
        gone = [n for n, message in enumerate(messages) if message.id in message_ids]
        if not gone:
            return
        owner, name = summary.owner, summary.id.partition("/")[2]
        settings = SessionSettings.of(summary)
        num_hidden = sum(n < settings.num_forgotten for n in gone)
        settings = replace(settings, num_forgotten=settings.num_forgotten - num_hidden)
        rest = [m for n, m in enumerate(messages) if n > gone[0] and n not in {*gone}]
        self._log.commit(owner, name, gone[0], rest, settings)
        metadata = without_title(summary.metadata, [messages[n] for n in gone])
        self._log.store.update_metadata(summary.id, owner, metadata)

    def _info(self, summary: SessionSummary) -> SessionInfo:
        pinned = self._log.num_pinned_tokens(SessionSettings.of(summary).system_prompt)
        return replace(info_of(summary), num_tokens=pinned + self._log.seen.num_tokens(summary.id))
