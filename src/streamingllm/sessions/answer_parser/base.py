"""Parts of an answer, and the protocol of a parser that finds them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Text:
    """Text of the answer that goes on."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """Text of reasoning that goes on; it is no part of the answer."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """A call of a function begins."""

    number: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """JSON text of a call's arguments that goes on."""

    number: int
    text: str


@dataclass(frozen=True)
class CallEnded:
    """A call is complete."""

    number: int


AnswerPart = Text | Reasoning | CallStarted | CallArguments | CallEnded


class AnswerParser(Protocol):
    """Find the parts of one answer, however its text is cut into pieces."""

    @property
    def stop_token_ids(self) -> Collection[int]:
        """Tokens that end an answer in this format."""
        ...

    @property
    def shown_token_ids(self) -> Collection[int]:
        """Special tokens whose text the parser reads."""
        ...

    def feed(self, text: str) -> list[AnswerPart]:
        """Return the parts that are certain after more text."""
        ...

    def finish(self) -> list[AnswerPart]:
        """Return the parts that were held back: the answer has ended."""
        ...
