"""Tell a chat template how much to reason, where it can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamingllm.errors import UnsupportedFeatureError
from streamingllm.models import LanguageModel
from streamingllm.sessions.reasoning import EFFORT, SWITCH, can_reason


def reasoning_switch(lm: LanguageModel, is_on: bool) -> Mapping[str, Any]:
    """Return the variables of a chat template that switch reasoning, if it has a switch."""
    return {SWITCH: is_on} if SWITCH in str(lm.tokenizer.chat_template or "") else {}


def reasoning_variables(lm: LanguageModel, effort: str | None) -> Mapping[str, Any]:
    """Return the variables of a chat template that ask for an effort; None asks for nothing.

    Raises:
        UnsupportedFeatureError: the template has no place for it.
    """
    if effort is None or (effort == "none" and not can_reason(lm)):
        return {}
    if effort != "none" and EFFORT in str(lm.tokenizer.chat_template or ""):
        return {EFFORT: effort}
    switch = reasoning_switch(lm, effort != "none")
    if not switch:
        raise UnsupportedFeatureError(
            f"reasoning_effort={effort!r} has no effect on {lm.name}; leave it out"
        )
    return switch
