"""Define what a memory gives back to a session before a message is fed."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class RecalledText:
    """Hold a part of a message that is no longer visible and was put back into the window.

    Args:
        message_id: of the message.
        position: stream position of its first token.
        text: of the part.
        score: the higher, the better; comparable within one turn only.
        speaker: name or role of its speaker.
        seconds: since 1970, when it was said.
        words: of the message to answer that the text has too, stemmed; none if only its neighbours
            have some.
    """

    message_id: str
    position: int
    text: str
    score: float
    speaker: str
    seconds: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """Describe a search that the model made while it answered.

    Args:
        query: as the model wrote it.
        texts: that it was given, the best first.
    """

    query: str
    texts: tuple[RecalledText, ...] = ()


@dataclass(frozen=True)
class EvictedResult:
    """Describe the result of a tool that has left the window.

    Args:
        message_id: of the result.
        tool: name of the tool; "" if no call names it.
        num_tokens: that the result had; estimated if it shares those of other messages.
    """

    message_id: str
    tool: str
    num_tokens: int


@dataclass(frozen=True)
class Recall:
    """Describe what was recalled for one turn.

    Args:
        texts: that were placed before the message, the best first.
        unknown_words: words of the message that nobody has said in the session, stemmed.
        is_not_found: whether the message asks about something that is neither visible nor found.
        searches: that the model made itself.
        evicted_results: results of tools that left the window since the last turn.
        has_search: whether the model can search for them.
    """

    texts: tuple[RecalledText, ...] = ()
    unknown_words: tuple[str, ...] = ()
    is_not_found: bool = False
    searches: tuple[Search, ...] = ()
    evicted_results: tuple[EvictedResult, ...] = ()
    has_search: bool = False


class Recaller(Protocol):
    """Find and write what left the window of a session; methods run in threads."""

    def recall(
        self, session_key: str, query: str, visible: Container[int], budget_tokens: int
    ) -> Recall:
        """Return texts that a message is about.

        Args:
            session_key: of the session.
            query: the message.
            visible: stream positions of messages that need no recall.
            budget_tokens: bound on the texts, by an estimate.
        """
        ...

    def listed(self, texts: Sequence[RecalledText]) -> str:
        """Return texts as lines in the order of the stream, each with its day and its speaker."""
        ...

    def with_recall(self, recall: Recall, text: str) -> str:
        """Return the text of a message with the recalled texts before it, between marks.

        A placeholder stands there for each evicted result.
        """
        ...


def estimated_tokens(text: str) -> int:
    """Estimate the tokens of a text: one for four bytes, rounded up."""
    return -(-len(text.encode(errors="replace")) // 4)
