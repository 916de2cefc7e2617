"""Conversations with the tiny chat model."""

from __future__ import annotations

from typing import Any

from streamingllm import LanguageModel
from streamingllm.sessions import Conversation
from tests.reference.tiny_chat import END

SYSTEM = "Be kind."
OPENING = f"s:{SYSTEM}{END}"
SAID = ("How are you?", "And now?", "Why?", "What else is there to say about it?", "Bye")


def begin(lm: LanguageModel, **options: Any) -> Conversation:
    """A conversation that sees the system prompt and 40 tokens more."""
    options = {"cache_size": len(OPENING) + 40, "max_rewind_tokens": 50, **options}
    return Conversation(lm, system_prompt=SYSTEM, **options)


def say(conversation: Conversation, text: str, max_new_tokens: int = 12) -> str:
    """The whole answer, without sampling."""
    return "".join(conversation.say(text, max_new_tokens=max_new_tokens))


def held(lm: LanguageModel, **options: Any) -> Conversation:
    """A conversation of five turns."""
    conversation = begin(lm, **options)
    for text in SAID:
        say(conversation, text)
    return conversation
