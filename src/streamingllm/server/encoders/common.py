"""Facts that the answers of several APIs share."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from streamingllm.errors import StreamingLLMError
from streamingllm.finish_reason import FinishReason
from streamingllm.server.forgetting import view_fields
from streamingllm.sessions.turn import (
    SampleEnded,
    TextDelta,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    TurnUsage,
)
from streamingllm.stream.next_token import TokenLogprobs


@dataclass
class TurnOutcome:
    """Collect the events of a turn.

    Args:
        started: the first event.
        samples: by number, once they have ended.
        logprobs: of the tokens of each sample's text, without its reasoning.
        ended: the last event.
    """

    started: TurnStarted
    samples: dict[int, SampleEnded] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    ended: TurnEnded | None = None

    @property
    def usage(self) -> TurnUsage:
        """Tokens of the turn, which has ended."""
        assert self.ended is not None
        return self.ended.usage

    def add(self, event: TurnEvent) -> None:
        """Take over an event."""
        if isinstance(event, TextDelta):
            if event.logprobs and not event.is_reasoning:
                self.logprobs.setdefault(event.sample, []).extend(event.logprobs)
        elif isinstance(event, SampleEnded):
            if event.reason is FinishReason.FAILED:
                raise event.error or StreamingLLMError("the answer failed; retry")
            self.samples[event.sample] = event
        elif isinstance(event, TurnEnded):
            self.ended = event


async def collect(started: TurnStarted, events: AsyncIterator[TurnEvent]) -> TurnOutcome:
    """Wait for the end of a turn."""
    outcome = TurnOutcome(started)
    async for event in events:
        outcome.add(event)
    return outcome


async def first_event(events: AsyncGenerator[TurnEvent, None]) -> TurnStarted:
    """Return the event before which everything is refused that can be."""
    started = await anext(events)
    assert isinstance(started, TurnStarted)
    return started


def forgetting(event: TurnStarted | TurnEnded, **fields: Any) -> dict[str, Any]:
    """Return the field `streamingllm` of an answer: what is visible, and what was forgotten."""
    return {**view_fields(event.view), **fields}


def to_json(value: Any) -> str:
    """Return JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
