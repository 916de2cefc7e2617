"""Define an index that a store keeps in step with its messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class MessageIndex(Protocol):
    """Follow the messages of all sessions, within the transactions that change them."""

    def add(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Note messages that were appended, each the number of its row and its JSON."""
        ...

    def remove(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Note messages that were deleted; their session is still there."""
        ...


class WordSearch(MessageIndex, Protocol):
    """Find sessions by words of their messages."""

    def condition(self, query: str, owner: str | None) -> tuple[str, list[str]]:
        """Return a condition of SQL on sessions, and its values.

        It holds for sessions with a message that has all words of the query. The last word may be
        the beginning of one.

        Args:
            query: words.
            owner: of the sessions; None for all.
        """
        ...
