"""Records of a memory: what was said, and what a search found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Said:
    """Describe a message that is appended to a memory.

    Args:
        session_id: of its session.
        role: of its speaker, such as "user".
        text: of the message.
        message_id: tells it apart from other messages of its session.
        position: stream position of its first token; None takes the number of its first piece.
        speaker: name; "" for none.
        seconds: since 1970, when it was said.
        source: where it came from, such as "chat" or the name of a file.
        facts: further JSON-able facts, which come back with it.
    """

    session_id: str
    role: str
    text: str
    message_id: str
    position: int | None
    speaker: str
    seconds: float
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recalled:
    """Hold one piece of a message that a search found.

    Args:
        message_id: of the message.
        position: stream position of its first token.
        text: of the piece; all of the message unless it is long.
        score: the higher, the better; comparable within one search only.
        role: of its speaker.
        speaker: name; "" for none.
        seconds: since 1970, when it was said.
        source: where it came from.
        number: of the piece among all of its session, from 0; neighbours follow each other.
        facts: further facts that were appended with it.
    """

    message_id: str
    position: int
    text: str
    score: float
    role: str
    speaker: str
    seconds: float
    source: str
    number: int
    facts: Mapping[str, Any] = field(default_factory=dict)
