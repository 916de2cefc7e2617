"""Tell whether a model reasons before it answers, and whether a window has room for that."""

from __future__ import annotations

from streamingllm.models import LanguageModel

SWITCH = "enable_thinking"
EFFORT = "reasoning_effort"
ROOM_TOKENS = 4096  # a chain of thought of some thousand tokens, and the question
_MARKS = ("<think>", SWITCH, EFFORT)


def can_reason(lm: LanguageModel) -> bool:
    """Return whether the chat template of a model speaks of reasoning."""
    template = str(lm.tokenizer.chat_template or "")
    return any(mark in template for mark in _MARKS)


def window_warning(lm: LanguageModel, cache_size: int) -> str:
    """Return what to tell a user whose window a chain of thought may outgrow; "" for nothing.

    Args:
        lm: the model.
        cache_size: tokens that it sees.
    """
    if cache_size >= ROOM_TOKENS or not can_reason(lm):
        return ""
    return (
        f"cache_size={cache_size} may be shorter than a chain of thought of {lm.name}: the "
        f"question leaves the window while the model reasons; choose {ROOM_TOKENS} or more, or "
        "switch reasoning off"
    )
