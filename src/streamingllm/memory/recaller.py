"""Recall from a memory what a message is about, as a `Recaller` does."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from streamingllm.memory.memory import Memory
from streamingllm.memory.passages import passages, recalled_block, recalled_lines
from streamingllm.memory.records import Recalled
from streamingllm.memory.support import Guard, Support
from streamingllm.sessions.recall import Recall, RecalledText

_BY_TOOL = "recall it with search_memory"
_BY_ASKING = "it is recalled when a message asks about it"
_QUESTION = re.compile(
    r"\?\s*$|^\s*(?:who|whom|whose|what|when|where|which|why|how|do|does|did|is|are|was|were|can|"
    r"could|tell me|remind me)\b",
    re.IGNORECASE,
)


class MemoryRecaller:
    """Recall texts of a memory, tell why each was found, and whether one was missing.

    Args:
        memory: that is searched.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._guard = Guard()

    def recall(
        self, session_key: str, query: str, visible: Container[int], budget_tokens: int
    ) -> Recall:
        """Return texts that a message is about; see `Recaller`.

        Up to eight passages are returned, each of neighbouring pieces. Pieces that score far below
        the best one are left out.
        """
        found = self.memory.search(session_key, query, budget_tokens, visible)
        support = Support()
        if _QUESTION.search(query):
            support = self.memory.support(session_key, query)
        asked = self.memory.words(query)
        texts = [_text(piece, self._shared(asked, piece)) for piece in passages(found)]
        return Recall(
            tuple(texts), support.unknown_words, is_not_found=self._guard.is_not_found(support)
        )

    def listed(self, texts: Sequence[RecalledText]) -> str:
        """Return texts as lines; see `Recaller`."""
        return "\n".join(recalled_lines(texts))

    def with_recall(self, recall: Recall, text: str) -> str:
        """Return a message with the recalled texts before it; see `Recaller`."""
        how = _BY_TOOL if recall.has_search else _BY_ASKING
        evicted = [
            f"[evicted: result of {result.tool or 'a tool'}, {result.num_tokens} tokens; {how}]"
            for result in recall.evicted_results
        ]
        block = recalled_block(recalled_lines(recall.texts)) if recall.texts else ""
        return "\n".join([*evicted, block, text])

    def _shared(self, asked: Sequence[str], piece: Recalled) -> tuple[str, ...]:
        """Return the words of a query that a piece has."""
        there = set(self.memory.words(f"{piece.speaker or piece.role} {piece.text}"))
        return tuple(word for word in dict.fromkeys(asked) if word in there)


def _text(piece: Recalled, words: tuple[str, ...]) -> RecalledText:
    return RecalledText(
        piece.message_id,
        piece.position,
        piece.text,
        piece.score,
        speaker=piece.speaker or piece.role,
        seconds=piece.seconds,
        words=words,
    )
