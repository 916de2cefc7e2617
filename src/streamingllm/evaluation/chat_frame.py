"""Pieces of a chat template around what a user says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamingllm.checks import check_choice
from streamingllm.errors import InputError

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel

TEMPLATES = ("raw", "chat")
_USER, _ANSWER, _NEXT = "\u2460first", "\u2461second", "\u2462third"


@dataclass(frozen=True)
class ChatFrame:
    """Texts before and after what a user says; all empty for raw text.

    Args:
        opening: before the first message, a default system prompt included.
        answering: after a message, before the answer.
        reopening: after an answer, before the next message.
    """

    opening: str = ""
    answering: str = ""
    reopening: str = ""

    @classmethod
    def of(cls, lm: LanguageModel, template: str) -> ChatFrame:
        """Return the frame of a model's chat template, or none for `raw`.

        Raises:
            ConfigError: `template` is neither `raw` nor `chat`.
            InputError: the model has no chat template, or one that changes what is said.
        """
        check_choice("template", template, TEMPLATES)
        if template == "raw":
            return cls()
        if not lm.tokenizer.chat_template:
            raise InputError("template='chat': the model has no chat template; use raw")
        messages = [
            {"role": "user", "content": _USER},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": _NEXT},
        ]
        text = lm.tokenizer.apply_chat_template(messages, tokenize=False)
        first = lm.tokenizer.apply_chat_template(
            messages[:1], tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        assert isinstance(first, str)
        if not all(mark in text for mark in (_USER, _ANSWER, _NEXT)) or _USER not in first:
            raise InputError("template='chat': the template changes what is said; use raw")
        opening, answering = first.split(_USER)
        reopening = text.split(_ANSWER)[1].split(_NEXT)[0]
        return cls(opening, answering, reopening)
