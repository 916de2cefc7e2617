"""Select what fits into a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from streamingllm.memory.records import Recalled

_MAX_MISSES = 8


def select(
    found: Iterable[Recalled], budget_tokens: int, count_tokens: Callable[[str], int]
) -> list[Recalled]:
    """Return the best pieces whose texts fit together into a budget.

    A piece that does not fit is skipped; after a few of them the budget counts as used up.

    Args:
        found: pieces, the best first; each is taken once.
        budget_tokens: of all texts.
        count_tokens: counts those of a text.
    """
    chosen: list[Recalled] = []
    seen: set[int] = set()
    left, num_misses = budget_tokens, 0
    for piece in found:
        if piece.number in seen:
            continue
        seen.add(piece.number)
        num_tokens = count_tokens(piece.text)
        if num_tokens <= left:
            chosen.append(piece)
            left -= num_tokens
        else:
            num_misses += 1
        if num_misses > _MAX_MISSES or left <= 0:
            break
    return chosen
