"""Put recalled texts before what a user asks, and take them out after the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamingllm.sessions.evicted_results import evicted_results
from streamingllm.sessions.memory_tool import may_search
from streamingllm.sessions.recall import Recall, Recaller
from streamingllm.sessions.session import Session
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.transcript import ContentPart, Message
from streamingllm.sessions.turn_input import TurnInput

_USER, _TOOL = "user", "tool"


@dataclass(frozen=True)
class RecalledInput:
    """Hold what a turn feeds, with what was recalled and without it.

    Args:
        told: to feed.
        plain: what is fed instead once the recalled texts are taken out.
        recall: what was recalled; None without a memory.
        num_told_tokens: see `Session`, once the turn has ended.
    """

    told: TurnInput
    plain: TurnInput
    recall: Recall | None = None
    num_told_tokens: int = 0

    @property
    def num_recalled_tokens(self) -> int:
        """Tokens that the recalled texts take, marks included."""
        return len(self.told.ids) - len(self.plain.ids)


class TurnRecall:
    """Encode turns with what a memory gives back.

    Args:
        recaller: the memory; None recalls nothing.
        templates: encodes messages.
        budget_tokens: bound on the recalled texts and their marks.
        max_rewind_tokens: longest turn that is taken back without a replay; a longer one keeps its
            recalled texts, which roll out of the window. 0 lets all of them roll out.
    """

    def __init__(
        self,
        recaller: Recaller | None,
        templates: TemplateCache,
        *,
        budget_tokens: int,
        max_rewind_tokens: int,
    ) -> None:
        self._recaller = recaller
        self._templates = templates
        self._budget_tokens = budget_tokens
        self._max_rewind_tokens = max_rewind_tokens

    async def encode(
        self, session: Session, messages: Sequence[Message], *, may_recall: bool
    ) -> RecalledInput:
        """Return what a session's stream is fed when these messages are next; see `TurnEncoder`."""
        plain = await self._templates.encode(session, messages)
        edge = session.visible_positions.start
        at = _last_asked(messages)
        if self._recaller is None or not may_recall or at is None:
            return RecalledInput(plain, plain, num_told_tokens=session.num_told_tokens)
        asked, recall = messages[at], Recall()
        if asked.role == _USER:
            recall = await asyncio.to_thread(
                self._recaller.recall,
                session.memory_key or session.key,
                asked.text,
                session.visible_positions,
                self._budget_tokens,
            )
        recall = replace(
            recall,
            evicted_results=evicted_results(session),
            has_search=may_search(session.tools),
        )
        while recall.texts or recall.evicted_results:
            text = self._recaller.with_recall(recall, asked.text)
            wrapped = replace(asked, parts=(ContentPart(text),))
            said = (*messages[:at], wrapped, *messages[at + 1 :])
            told = await self._templates.encode(session, said)
            if len(told.ids) - len(plain.ids) <= self._budget_tokens:
                placed = tuple(
                    replace(message, parts=asked.parts) if message.id == asked.id else message
                    for message in told.messages
                )
                return RecalledInput(replace(told, messages=placed), plain, recall, edge)
            if recall.texts:
                recall = replace(recall, texts=recall.texts[:-1])
            else:
                recall = replace(recall, evicted_results=recall.evicted_results[1:])
        return RecalledInput(plain, plain, recall, edge)

    def take_out(self, session: Session, recalled: RecalledInput) -> None:
        """Let the log of a session say what it would say if nothing had been recalled.

        The last message is the answer. Its stream is taken back to the beginning of the turn and
        fed anew with the next turn. The model has been told of results that left the window.
        """
        session.num_told_tokens = recalled.num_told_tokens
        first = recalled.told.answer_first - len(recalled.told.ids)
        first += recalled.told.num_prefill_tokens
        num_taken = len(session.token_log) - first
        if not 0 < recalled.num_recalled_tokens <= num_taken <= self._max_rewind_tokens:
            return
        answer, shift = session.transcript[-1], recalled.num_recalled_tokens
        generated = session.token_log[first + len(recalled.told.ids) :]
        session.transcript.truncate(len(session.transcript) - 1 - len(recalled.told.messages))
        session.truncate_tokens(first)
        session.token_log.extend(recalled.plain.ids)
        session.token_log.extend(generated)
        for message in recalled.plain.messages:
            session.transcript.append(message)
        session.transcript.append(
            replace(answer, first=answer.first - shift, stop=answer.stop - shift)
        )


def _last_asked(messages: Sequence[Message]) -> int | None:
    """Return the number of the message that is to be answered, a user's or a tool's result.

    An assistant's message after it is the beginning of the answer. None if there is no message
    with a text.
    """
    at = len(messages) - 1
    if at > 0 and messages[at].role == "assistant" and not messages[at].tool_calls:
        at -= 1
    is_asked = at >= 0 and messages[at].role in (_USER, _TOOL) and bool(messages[at].text.strip())
    return at if is_asked else None
