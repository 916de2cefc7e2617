"""Answers that are text and nothing else."""

from __future__ import annotations

from collections.abc import Collection

from streamingllm.sessions.answer_parser.base import AnswerPart, Text


class PlainParser:
    """Take every text for text; an `AnswerParser`."""

    stop_token_ids: Collection[int] = ()
    shown_token_ids: Collection[int] = ()

    def feed(self, text: str) -> list[AnswerPart]:
        """Return the text."""
        return [Text(text)] if text else []

    def finish(self) -> list[AnswerPart]:
        """Return nothing, because nothing is held back."""
        return []
