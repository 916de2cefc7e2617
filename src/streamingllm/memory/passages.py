"""Choose passages among found pieces, and write them as text that a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamingllm.memory.records import Recalled
from streamingllm.memory.words import date_text
from streamingllm.sessions.recall import RecalledText

_OPENING = "[From earlier in this conversation, no longer in view:]"
_CLOSING = "[End of what was recalled.]"
_MAX_PASSAGES = 8
_MIN_SHARE_OF_BEST = 0.25


def passages(found: Sequence[Recalled]) -> list[Recalled]:
    """Return the best pieces that make up at most eight passages of neighbours.

    Pieces that score below a quarter of the best one are left out.

    Args:
        found: by one search, the best first.
    """
    chosen: dict[int, Recalled] = {}
    for piece in found:
        if piece.score < _MIN_SHARE_OF_BEST * found[0].score:
            break
        numbers = {*chosen, piece.number}
        if sum(number - 1 not in numbers for number in numbers) <= _MAX_PASSAGES:
            chosen[piece.number] = piece
    return list(chosen.values())


def recalled_lines(texts: Iterable[RecalledText]) -> list[str]:
    """Return texts as lines in the order of the stream, each with its day and its speaker."""
    return [
        f"{date_text(part.seconds)}, {part.speaker}: {part.text.strip()}"
        for part in sorted(texts, key=lambda part: part.position)
    ]


def recalled_block(lines: Iterable[str]) -> str:
    """Return recalled lines between two marks in brackets, which every chat template allows."""
    return "\n".join([_OPENING, *lines, _CLOSING, ""])
