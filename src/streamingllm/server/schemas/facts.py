"""Schemas of the facts that a session pins."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from streamingllm.server.schemas.common import AnswerModel, RequestModel
from streamingllm.sessions.facts import MAX_FACT_CHARACTERS, Fact


class PinFact(RequestModel):
    """Describe a fact to pin; it joins the pinned prefix."""

    text: str = Field(min_length=1, max_length=MAX_FACT_CHARACTERS)
    message_id: str | None = Field(
        None, description="The message that it comes from; forgotten with it."
    )


class CorrectFact(RequestModel):
    """Hold the text that a pinned fact has from now on."""

    text: str = Field(min_length=1, max_length=MAX_FACT_CHARACTERS)


class FactObject(AnswerModel):
    """Show a pinned fact."""

    object: Literal["session.fact"] = "session.fact"
    id: str
    text: str
    message_id: str | None
    pinned_at: int = Field(description="Seconds since 1970, when it was pinned or corrected.")

    @classmethod
    def of(cls, fact: Fact) -> Self:
        """Show a fact of a session."""
        return cls(
            id=fact.id,
            text=fact.text,
            message_id=fact.message_id or None,
            pinned_at=int(fact.pinned_seconds),
        )


class FactDeleted(AnswerModel):
    """Report that a fact is no longer pinned."""

    object: Literal["session.fact.deleted"] = "session.fact.deleted"
    id: str
    deleted: Literal[True] = True
