"""Long conversations by any client, and what must hold of them."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass

NUM_TURNS = int(os.environ.get("STREAMINGLLM_CLIENT_TURNS", "200"))
MAX_TOKENS = 8


@dataclass(frozen=True)
class Turn:
    """Counts of one turn, as a client read them.

    Args:
        num_prompt_tokens: that the answer could build on.
        num_cached_tokens: those of them that were not fed again.
        num_generated_tokens: of the answer.
    """

    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int


def question(number: int) -> str:
    """A question that differs from those before it."""
    return f"Question {number}: name one thing that is made of wood."


def check_turns(turns: list[Turn], cache_size: int) -> None:
    """A turn costs its own tokens, however many came before it."""
    assert len(turns) == NUM_TURNS
    assert all(turn.num_prompt_tokens <= 2 * cache_size for turn in turns)
    assert all(0 < turn.num_generated_tokens <= MAX_TOKENS for turn in turns)
    assert all(turn.num_cached_tokens > 0 for turn in turns[1:])
    fed = [turn.num_prompt_tokens - turn.num_cached_tokens for turn in turns]
    half = NUM_TURNS // 2
    assert statistics.median(fed[half:]) <= 1.1 * statistics.median(fed[1:half]) + 2
    assert max(fed) < cache_size // 4
