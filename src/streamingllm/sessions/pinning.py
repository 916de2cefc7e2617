"""The pinned prefix of sessions: system prompt and tools, put first and replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamingllm.errors import InputError
from streamingllm.sessions.facts import Fact
from streamingllm.sessions.memory_tool import with_search
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.session import Session
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.transcript import Message, Transcript
from streamingllm.sessions.turn import TurnRequest

_SYSTEM = "system"


class Pinning:
    """Let sessions begin with what they pin, and with something else when a request asks for it.

    Args:
        templates: encodes what is pinned.
        residency: drops the stream of a session whose prefix changes.
        max_pinned_tokens: longest pinned prefix.
        has_search: whether models may search the memory by a tool, which is pinned too.
    """

    def __init__(
        self,
        templates: TemplateCache,
        residency: ResidencyPolicy,
        max_pinned_tokens: int,
        *,
        has_search: bool = False,
    ) -> None:
        self._has_search = has_search
        self._templates = templates
        self._residency = residency
        self._max_pinned_tokens = max_pinned_tokens

    async def pin(
        self,
        session: Session,
        system_prompt: str,
        tools: tuple[Mapping[str, Any], ...],
        variables: dict[str, Any],
    ) -> None:
        """Let an empty session begin with the opening of its template.

        Raises:
            InputError: the system prompt and the tools are longer than what may be pinned.
        """
        session.system_prompt, session.tools = system_prompt, self._with_search(tools)
        session.variables = variables
        opening = await self._templates.opening_ids(session)
        if len(opening) > self._max_pinned_tokens:
            raise InputError(
                f"system prompt, facts and tools have {len(opening)} tokens, more than "
                f"max_pinned_tokens={self._max_pinned_tokens}; shorten them or let the operator "
                "raise it"
            )
        session.num_pinned_tokens = len(opening)
        session.token_log.extend(opening)
        if session.pinned_prompt:
            said = Message.of_text(_SYSTEM, session.pinned_prompt)
            session.transcript.append(replace(said, stop=len(opening)))

    def fits(self, session: Session, request: TurnRequest) -> bool:
        """Tell whether a session pins what a request asks for."""
        return self._wanted(session, request) == (
            session.system_prompt,
            session.tools,
            dict(session.variables),
        )

    async def pinned_anew(self, session: Session, request: TurnRequest) -> Session | None:
        """Return a draft that pins what a request asks for; None if the session does already.

        Raises:
            InputError: the system prompt and the tools are longer than what may be pinned.
        """
        # A server that died after it stored a new session left no token of it.
        if len(session.token_log) and self.fits(session, request):
            return None
        draft = Session(session.id, session.owner, facts=session.facts)
        await self.pin(draft, *self._wanted(session, request))
        return draft

    async def replace_facts(self, session: Session, facts: tuple[Fact, ...]) -> None:
        """Let a session pin other facts; its stream is erased and replayed with the next turn.

        Raises:
            InputError: the pinned prefix is longer than what may be pinned.
            UnsupportedFeatureError: the template has no place for facts.
        """
        draft = Session(session.id, session.owner, facts=facts)
        variables = dict(session.variables)
        await self.pin(draft, session.system_prompt, session.tools, variables)
        await self._residency.drop(session, wipe=True)
        await self._replace_pinned(session, draft)
        session.facts = facts

    async def adopt(self, session: Session, request: TurnRequest, pinned: Session | None) -> None:
        """Give a session the eviction that a request brings, and what was pinned anew.

        When what is pinned changes, the token log is made anew and the stream is replayed from it.
        """
        if request.eviction is not None:
            session.eviction = request.eviction
        if pinned is not None:
            await self._replace_pinned(session, pinned)

    def _wanted(
        self, session: Session, request: TurnRequest
    ) -> tuple[str, tuple[Mapping[str, Any], ...], dict[str, Any]]:
        return (
            session.system_prompt if request.system_prompt is None else request.system_prompt,
            self._with_search(session.tools if request.tools is None else request.tools),
            {**session.variables, **request.template_variables},
        )

    def _with_search(self, tools: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        return with_search(_plain(tools), is_on=self._has_search)

    async def _replace_pinned(self, session: Session, draft: Session) -> None:
        """Put another opening before all that was said since."""
        await self._residency.drop(session)
        old_pinned = session.num_pinned_tokens
        shift = draft.num_pinned_tokens - old_pinned
        draft.token_log.extend(session.token_log[old_pinned:])
        transcript = Transcript()
        for message in [*draft.transcript, *said_in(list(session.transcript))]:
            is_pinned = message.role == _SYSTEM and not len(transcript) and draft.pinned_prompt
            moved = 0 if is_pinned else shift
            transcript.append(
                replace(message, first=message.first + moved, stop=message.stop + moved)
            )
        session.system_prompt, session.tools = draft.system_prompt, draft.tools
        session.variables = draft.variables
        session.num_pinned_tokens = draft.num_pinned_tokens
        session.token_log, session.transcript = draft.token_log, transcript
        session.num_stored_messages = session.num_stored_tokens = 0


def said_in(messages: Sequence[Message]) -> list[Message]:
    """Return the messages after the pinned system prompt."""
    messages = list(messages)
    return messages[1:] if messages and messages[0].role == _SYSTEM else messages


def _plain(tools: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return tools as they come back from the store, so that they compare equal."""
    return tuple(json.loads(json.dumps(list(tools))))
