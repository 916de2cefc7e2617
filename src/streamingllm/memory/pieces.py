"""Cut long messages into pieces, at the ends of paragraphs, sentences or words."""

from __future__ import annotations

import re

_ENDS = (re.compile(r"\n\s*"), re.compile(r"[.!?。！？]+[\"')\]]*\s*"), re.compile(r"\s+"))


def pieces_of(text: str, max_characters: int) -> list[str]:
    """Return pieces that make up the text when they are joined.

    A piece ends where a paragraph ends in its second half, else where a sentence does, else a word,
    else anywhere.

    Args:
        text: of a message.
        max_characters: of a piece.
    """
    pieces, start = [], 0
    while len(text) - start > max_characters:
        stop = _last_end(text, start + (max_characters + 1) // 2, start + max_characters)
        pieces.append(text[start:stop])
        start = stop
    if start < len(text) or not pieces:
        pieces.append(text[start:])
    return pieces


def _last_end(text: str, low: int, high: int) -> int:
    """Return where a piece ends, at `low` or after it."""
    for end in _ENDS:
        found = [match.end() for match in end.finditer(text, low, high)]
        if found:
            return found[-1]
    return high
