"""Chat templates with their system prompts and tools, made once each."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence

from streamingllm.models import LanguageModel
from streamingllm.sessions.session import Session
from streamingllm.sessions.template import ChatTemplate
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn_input import TurnEncoder, TurnInput

_ASSISTANT = "assistant"


class TemplateCache:
    """Render and tokenise outside the event loop; one thread at a time uses the tokenizer.

    Args:
        lm: model and tokenizer.
        max_templates: that are kept.
    """

    def __init__(self, lm: LanguageModel, max_templates: int = 64) -> None:
        self._lm = lm
        self._max_templates = max_templates
        self._templates: OrderedDict[str, ChatTemplate] = OrderedDict()
        self._lock = threading.Lock()

    async def template(self, session: Session) -> ChatTemplate:
        """Return the template of a session.

        Raises:
            UnsupportedFeatureError: the model has none, or none with a place for this.
        """
        return await asyncio.to_thread(self._template, session)

    async def opening_ids(self, session: Session) -> list[int]:
        """Return the ids of the opening, which a session pins."""

        def encode() -> list[int]:
            template = self._template(session)
            with self._lock:
                return template.opening_ids()

        return await asyncio.to_thread(encode)

    async def encode(self, session: Session, messages: Sequence[Message]) -> TurnInput:
        """Return what a session's stream is fed when these messages are next.

        Raises:
            InputError: a message cannot be rendered.
            UnsupportedFeatureError: the template takes no such messages here.
        """

        def encode() -> TurnInput:
            template = self._template(session)
            last = session.last_fed_message()
            has_past = session.transcript.num_turns > 0 and last is not None
            encoder = TurnEncoder(
                self._lm,
                template,
                past=has_past,
                answer=last if last is not None and last.role == _ASSISTANT else None,
                last_token_id=session.token_log.at(-1) if len(session.token_log) else None,
                first=len(session.token_log),
            )
            with self._lock:
                return encoder.encode(messages)

        return await asyncio.to_thread(encode)

    async def user_turn_ids(self, session: Session) -> tuple[list[int], list[int]]:
        """Return the ids before and after what a user says next."""

        def encode() -> tuple[list[int], list[int]]:
            template = self._template(session)
            last = session.last_fed_message()
            has_past = session.transcript.num_turns > 0 and last is not None
            with self._lock:
                return template.user_turn_ids(
                    is_first=not has_past,
                    answer=last if last is not None and last.role == _ASSISTANT else None,
                    last_token_id=session.token_log.at(-1) if len(session.token_log) else None,
                )

        return await asyncio.to_thread(encode)

    async def encode_text(self, text: str, *, is_beginning: bool) -> list[int]:
        """Return the ids of plain text; its control tokens are text too."""

        def encode() -> list[int]:
            with self._lock:
                ids: list[int] = self._lm.encode(
                    text,
                    add_special_tokens=is_beginning,
                    parse_control_tokens=False,
                    is_continuation=not is_beginning,
                ).tolist()
            return ids

        return await asyncio.to_thread(encode)

    def _template(self, session: Session) -> ChatTemplate:
        key = json.dumps(
            [session.pinned_prompt, list(session.tools), dict(session.variables)], sort_keys=True
        )
        with self._lock:
            template = self._templates.get(key)
            if template is None:
                template = ChatTemplate(
                    self._lm,
                    session.pinned_prompt,
                    tools=session.tools,
                    variables=session.variables,
                )
                self._templates[key] = template
            self._templates.move_to_end(key)
            while len(self._templates) > self._max_templates:
                self._templates.popitem(last=False)
        return template
