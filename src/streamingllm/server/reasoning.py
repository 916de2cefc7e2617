"""Tell a chat template how much to reason, where it can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamingllm.errors import UnsupportedFeatureError
from streamingllm.models import LanguageModel

_SWITCH = "enable_thinking"
_EFFORT = "reasoning_effort"
_MARKS = ("<think>", _SWITCH, _EFFORT)


def can_reason(lm: LanguageModel) -> bool:
    """Return whether the chat template of a model speaks of reasoning."""
    template = str(lm.tokenizer.chat_template or "")
    return any(mark in template for mark in _MARKS)


def reasoning_switch(lm: LanguageModel, is_on: bool) -> Mapping[str, Any]:
    """Return the variables of a chat template that switch reasoning, if it has a switch."""
    return {_SWITCH: is_on} if _SWITCH in str(lm.tokenizer.chat_template or "") else {}


def reasoning_variables(lm: LanguageModel, effort: str | None) -> Mapping[str, Any]:
    """Return the variables of a chat template that ask for an effort; None asks for nothing.

    Raises:
        UnsupportedFeatureError: the template has no place for it.
    """
    if effort is None or (effort == "none" and not can_reason(lm)):
        return {}
    if effort != "none" and _EFFORT in str(lm.tokenizer.chat_template or ""):
        return {_EFFORT: effort}
    switch = reasoning_switch(lm, effort != "none")
    if not switch:
        raise UnsupportedFeatureError(
            f"reasoning_effort={effort!r} has no effect on {lm.name}; leave it out"
        )
    return switch
