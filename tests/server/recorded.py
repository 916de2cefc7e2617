"""Events of turns as a session manager yields them, for tests of what is made of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from streamingllm.finish_reason import FinishReason
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall
from streamingllm.sessions.turn import (
    SampleEnded,
    SessionView,
    TextDelta,
    ToolCallDelta,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    TurnUsage,
)
from streamingllm.stream.next_token import TokenLogprobs

ANSWER_ID = "msg_answer"
ARGUMENTS = '{"city": "Paris"}'


def view(num_seen: int = 90, num_visible: int = 60) -> SessionView:
    return SessionView("sess_1", num_seen, num_visible, 20, 4, "msg_4", 9, ("Be careful.",))


STARTED = TurnStarted(view(80, 60), ANSWER_ID, num_prompt_tokens=60, num_cached_tokens=50)
ENDED = TurnEnded(view(), TurnUsage(50, 10, 7, 2, 30))


def answer(text: str = "", *calls: ToolCall) -> Message:
    parts = (ContentPart(text),) if text else ()
    return Message("assistant", parts, tool_calls=calls, id=ANSWER_ID)


def ended(
    text: str = "", *calls: ToolCall, reason: FinishReason = FinishReason.STOP, **fields: Any
) -> SampleEnded:
    return SampleEnded(fields.pop("sample", 0), reason, answer(text, *calls), **fields)


def text_turn(*pieces: str, **fields: Any) -> list[TurnEvent]:
    """A turn whose answer comes in pieces."""
    deltas = [TextDelta(0, piece) for piece in pieces]
    return [*deltas, ended("".join(pieces), **fields), ENDED]


def logprobs(*token_ids: int) -> tuple[TokenLogprobs, ...]:
    return tuple(TokenLogprobs(i, -0.5, ((i, -0.5), (i + 1, float("-inf")))) for i in token_ids)


def tool_turn() -> list[TurnEvent]:
    """A turn that reasons, says something, and calls two tools."""
    calls = (ToolCall("call_0", "weather", ARGUMENTS), ToolCall("call_1", "clock", "{}"))
    return [
        TextDelta(0, "Hmm", is_reasoning=True),
        TextDelta(0, "Let me see."),
        ToolCallDelta(0, 0, "call_0", "weather", "", is_first=True),
        ToolCallDelta(0, 0, "call_0", "weather", ARGUMENTS[:8]),
        ToolCallDelta(0, 0, "call_0", "weather", ARGUMENTS[8:]),
        ToolCallDelta(0, 1, "call_1", "clock", "", is_first=True),
        ToolCallDelta(0, 1, "call_1", "clock", "{}"),
        ended("Let me see.", *calls, reasoning="Hmm"),
        ENDED,
    ]


def two_samples() -> list[TurnEvent]:
    """A turn of two samples, one of which is cut off."""
    return [
        TextDelta(0, "a"),
        TextDelta(1, "b"),
        TextDelta(0, "c"),
        ended("ac", sample=0),
        ended("b", sample=1, reason=FinishReason.LENGTH),
        ENDED,
    ]


async def replay(events: Iterable[TurnEvent]) -> AsyncIterator[TurnEvent]:
    for event in events:
        yield event


async def gather(chunks: AsyncIterator[bytes]) -> list[bytes]:
    return [chunk async for chunk in chunks]


def payloads(chunks: Sequence[bytes]) -> list[dict[str, Any]]:
    """The JSON of the events of a stream, without the last `[DONE]`."""
    found = []
    for chunk in chunks:
        assert chunk.endswith(b"\n\n")
        lines = chunk.decode().strip().split("\n")
        data = next(line.removeprefix("data: ") for line in lines if line.startswith("data: "))
        if data != "[DONE]":
            found.append(json.loads(data))
    return found
