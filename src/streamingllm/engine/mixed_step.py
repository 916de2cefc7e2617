"""Tokens of prompts that join a step of the streams that decode."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TypeAlias

from streamingllm.engine.model_runner import ModelRunner
from streamingllm.engine.stream import EngineStream

Shares: TypeAlias = list[tuple[EngineStream, int]]


def joining(prompts: Sequence[EngineStream], runner: ModelRunner) -> Shares:
    """Return which prompts can join a step, with how many tokens, up to the first that cannot.

    A prompt that cannot join comes before those behind it, in a pass of its own.
    """
    able = takewhile(runner.can_step, prompts)
    return [(prompt, prompt.num_prefill_tokens(runner.max_tokens_per_slot)) for prompt in able]


def shares(joining: Shares, num_tokens: int) -> Shares:
    """Return how many of `num_tokens` each prompt gets; those in front get all that they can take.

    Args:
        joining: prompts, and how many tokens each can take.
        num_tokens: of all prompts together.
    """
    found = []
    for prompt, most in joining:
        number = min(most, num_tokens)
        if number:
            found.append((prompt, number))
        num_tokens -= number
    return found
