"""Turn messages into the token ids that a session's stream is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamingllm.errors import UnsupportedFeatureError
from streamingllm.models import LanguageModel
from streamingllm.sessions.template import ChatTemplate
from streamingllm.sessions.transcript import Message

_ASSISTANT = "assistant"


@dataclass(frozen=True)
class TurnInput:
    """Hold the messages of a request with the token ids that stand for them.

    Args:
        messages: with their stream positions.
        ids: to feed, up to the answer.
        prefill: text with which the answer begins, because the last message was an assistant's.
        answer_first: stream position of the first token of the answer.
        num_prefill_tokens: tokens of `prefill`.
    """

    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    prefill: str
    answer_first: int
    num_prefill_tokens: int = 0


class TurnEncoder:
    """Encode the messages of one request, piece by piece.

    A history is fed as it would have been fed message by message: what stands between two answers
    is rendered by the template, an answer is its own text.

    Args:
        lm: model and tokenizer.
        template: with the session's system prompt and tools.
        past: whether the stream has seen a turn.
        answer: the last message, if it is an assistant's.
        last_token_id: of the stream, if it has one.
        first: stream position of the first token.
    """

    def __init__(
        self,
        lm: LanguageModel,
        template: ChatTemplate,
        *,
        past: bool,
        answer: Message | None,
        last_token_id: int | None,
        first: int,
    ) -> None:
        self._lm = lm
        self._template = template
        self._has_past = past
        self._answer = answer
        self._last_token_id = last_token_id
        self._first = first
        self._ids: list[int] = []
        self._placed: list[Message] = []

    def encode(self, messages: Sequence[Message]) -> TurnInput:
        """Return the input that these messages are.

        Raises:
            InputError: a role is no word, or the tokenizer makes a control token of plain text.
            UnsupportedFeatureError: the template takes no such messages here.
        """
        group: list[Message] = []
        prefill, answer_first = "", None
        for number, message in enumerate(messages):
            is_text = message.role == _ASSISTANT and not message.tool_calls
            if not (is_text and (group or self._is_open)):
                group.append(message)
                continue
            if group:
                self._add_group(group)
                group = []
            if number == len(messages) - 1:
                prefill, answer_first = message.text, self._position
                self._add_answer_text(message.text)
            else:
                self._add_answer(message)
        if group:
            self._add_group(group)
        answer_first = self._position if answer_first is None else answer_first
        num_prefill = self._position - answer_first
        return TurnInput(tuple(self._placed), tuple(self._ids), prefill, answer_first, num_prefill)

    @property
    def _is_open(self) -> bool:
        """Return whether the stream stands where an answer begins."""
        return self._has_past and self._answer is None

    @property
    def _position(self) -> int:
        return self._first + len(self._ids)

    def _add_group(self, group: Sequence[Message]) -> None:
        if self._has_past:
            ids = self._template.next_turn_ids(
                group, self._answer, last_token_id=self._last_token_id
            )
        else:
            ids = self._first_turn_ids(group)
        first = self._position
        self._extend(ids)
        stop, begins_turn = self._position, True
        for message in group:
            # The marks of a template join messages, so the first one stands for all their tokens.
            self._placed.append(replace(message, first=first, stop=stop, begins_turn=begins_turn))
            first, begins_turn = stop, False
        self._has_past, self._answer = True, None

    def _first_turn_ids(self, group: Sequence[Message]) -> list[int]:
        """Return the ids of the first messages; an answer that nobody asked for follows silence."""
        try:
            return self._template.first_turn_ids(group)
        except UnsupportedFeatureError:
            if group[0].role != _ASSISTANT:
                raise
            return self._template.first_turn_ids([Message.of_text("user", ""), *group])

    def _add_answer(self, message: Message) -> None:
        first = self._position
        self._add_answer_text(message.text)
        self._placed.append(replace(message, first=first, stop=self._position))
        self._answer = message

    def _add_answer_text(self, text: str) -> None:
        self._extend(self._template.answer_lead_ids())
        ids = self._lm.encode(
            text, add_special_tokens=False, parse_control_tokens=False, is_continuation=True
        )
        self._extend(ids.tolist())

    def _extend(self, ids: Sequence[int]) -> None:
        self._ids += ids
        if ids:
            self._last_token_id = ids[-1]
