"""Facts that people pin to a session: part of its pinned prefix, never evicted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from streamingllm.errors import FactNotFoundError, InputError

MAX_FACT_CHARACTERS = 2000
_HEADING = "Facts to keep in mind:"


@dataclass(frozen=True)
class Fact:
    """Hold a fact that is pinned.

    Args:
        text: one line.
        message_id: of the message that it was pinned from; "" for none.
        id: of the fact.
        pinned_seconds: since 1970, when it was pinned or corrected.
    """

    text: str
    message_id: str = ""
    id: str = field(default_factory=lambda: f"fact_{uuid4().hex}")
    pinned_seconds: float = field(default_factory=time.time)


def new_fact(text: str, message_id: str = "") -> Fact:
    """Return a fact of a text, whose white space becomes single spaces.

    Raises:
        InputError: the text is empty or too long.
    """
    return Fact(_as_line(text), message_id)


def corrected(facts: Sequence[Fact], fact_id: str, text: str) -> tuple[Fact, ...]:
    """Return facts of which one has another text.

    Raises:
        FactNotFoundError: there is none of that id.
        InputError: the text is empty or too long.
    """
    _check_known(facts, fact_id)
    line, now = _as_line(text), time.time()
    return tuple(
        replace(fact, text=line, pinned_seconds=now) if fact.id == fact_id else fact
        for fact in facts
    )


def without(facts: Sequence[Fact], fact_id: str) -> tuple[Fact, ...]:
    """Return facts except one.

    Raises:
        FactNotFoundError: there is none of that id.
    """
    _check_known(facts, fact_id)
    return tuple(fact for fact in facts if fact.id != fact_id)


def prompt_with_facts(system_prompt: str, facts: Sequence[Fact]) -> str:
    """Return a system prompt with a list of facts after it."""
    if not facts:
        return system_prompt
    listed = "\n".join([_HEADING, *(f"- {fact.text}" for fact in facts)])
    return f"{system_prompt}\n\n{listed}" if system_prompt else listed


def fact_of(fields: Mapping[str, Any]) -> Fact:
    """Return a fact of a document.

    Raises:
        InputError: a field is missing or has the wrong type.
    """
    fact = new_fact(str(fields["text"]), str(fields.get("message_id", "")))
    return replace(fact, pinned_seconds=float(fields.get("pinned_seconds", fact.pinned_seconds)))


def _as_line(text: str) -> str:
    line = " ".join(text.split())
    if not 0 < len(line) <= MAX_FACT_CHARACTERS:
        raise InputError(
            f"text has {len(line)} characters; send a fact of 1 to {MAX_FACT_CHARACTERS}"
        )
    return line


def _check_known(facts: Sequence[Fact], fact_id: str) -> None:
    if all(fact.id != fact_id for fact in facts):
        raise FactNotFoundError(f"fact_id={fact_id!r} is not pinned in the session; list its facts")
