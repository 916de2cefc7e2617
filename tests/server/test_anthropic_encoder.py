"""What Anthropic's Messages API makes of the events of a turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamingllm.finish_reason import FinishReason
from streamingllm.server.encoders.anthropic import MessageFacts, message_body, message_events
from streamingllm.server.encoders.common import collect
from streamingllm.server.schemas.anthropic_answers import AnthropicMessage
from streamingllm.sessions.turn import TurnEvent
from tests.server.recorded import (
    ANSWER_ID,
    ARGUMENTS,
    ENDED,
    STARTED,
    ended,
    gather,
    payloads,
    replay,
    text_turn,
    tool_turn,
)

pytestmark = pytest.mark.anyio
FACTS = MessageFacts("tiny")


async def body_of(events: list[TurnEvent], facts: MessageFacts = FACTS) -> dict[str, Any]:
    body = message_body(facts, await collect(STARTED, replay(events)))
    AnthropicMessage.model_validate(body, strict=True)
    return body


async def stream(events: list[TurnEvent]) -> list[dict[str, Any]]:
    chunks = await gather(message_events(FACTS, STARTED, replay(events)))
    found = payloads(chunks)
    for chunk, payload in zip(chunks, found, strict=True):
        assert chunk.startswith(f"event: {payload['type']}\n".encode())
    return found


async def test_a_text_streams_in_the_order_that_clients_know() -> None:
    found = await stream(text_turn("Hel", "lo"))
    assert [event["type"] for event in found] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = found[0]["message"]
    assert (message["id"], message["content"], message["stop_reason"]) == (ANSWER_ID, [], None)
    assert message["usage"]["input_tokens"] == 10
    assert found[3]["delta"] == {"type": "text_delta", "text": "Hel"}
    assert found[6]["delta"]["stop_reason"] == "end_turn"
    assert found[6]["usage"]["output_tokens"] == 7
    assert found[6]["streamingllm"]["forgotten_tokens"] == 30


async def test_blocks_of_reasoning_text_and_calls_follow_one_another() -> None:
    found = await stream(tool_turn())
    starts = [event for event in found if event["type"] == "content_block_start"]
    kinds = [(event["index"], event["content_block"]["type"]) for event in starts]
    assert kinds == [(0, "thinking"), (1, "text"), (2, "tool_use"), (3, "tool_use")]
    stops = [event["index"] for event in found if event["type"] == "content_block_stop"]
    assert stops == [0, 1, 2, 3]
    deltas = [event for event in found if event["type"] == "content_block_delta"]
    assert [event["delta"]["type"] for event in deltas[:2]] == [
        "thinking_delta",
        "signature_delta",
    ]
    pieces = [event["delta"]["partial_json"] for event in deltas if event["index"] == 2]
    assert "".join(pieces) == ARGUMENTS
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


async def test_a_whole_answer_has_the_same_blocks() -> None:
    body = await body_of(tool_turn())
    assert [block["type"] for block in body["content"]] == [
        "thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert body["content"][2]["input"] == json.loads(ARGUMENTS)
    assert body["stop_reason"] == "tool_use"


async def test_usage_tells_read_from_fed_tokens() -> None:
    usage = (await body_of(text_turn("Hi")))["usage"]
    assert usage["input_tokens"] == 10
    assert usage["cache_read_input_tokens"] == 50
    assert usage["cache_creation_input_tokens"] == 0
    assert usage["output_tokens"] == 7
    assert usage["evicted_tokens"] == 30


@pytest.mark.parametrize(
    ("fields", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"stop_string": "END"}, "stop_sequence", "END"),
        ({"reason": FinishReason.LENGTH}, "max_tokens", None),
        ({"reason": FinishReason.DEADLINE}, "max_tokens", None),
    ],
)
async def test_reasons_to_stop(fields: dict[str, Any], reason: str, sequence: str | None) -> None:
    events = text_turn("Hi", **fields)
    body = await body_of(events)
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, sequence)
    delta = (await stream(events))[-2]["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == (reason, sequence)


async def test_an_empty_answer_is_one_empty_text() -> None:
    events: list[TurnEvent] = [ended(""), ENDED]
    assert [block["text"] for block in (await body_of(events))["content"]] == [""]
    starts = [e["content_block"]["type"] for e in await stream(events) if "content_block" in e]
    assert starts == ["text"]


async def test_fields_without_effect_are_named_with_the_reason() -> None:
    facts = MessageFacts("tiny", {"thinking": "tiny does not reason"})
    body = await body_of(text_turn("Hi"), facts)
    assert body["streamingllm"]["ignored_fields"] == {"thinking": "tiny does not reason"}
