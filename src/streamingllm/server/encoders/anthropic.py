"""Answers of /v1/messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamingllm.finish_reason import FinishReason
from streamingllm.server.encoders.common import TurnOutcome, forgetting, to_json
from streamingllm.server.errors import ApiError, error_body
from streamingllm.server.messages import arguments_object
from streamingllm.server.sse import sse_event
from streamingllm.sessions.turn import (
    SampleEnded,
    TextDelta,
    ToolCallDelta,
    TurnEvent,
    TurnStarted,
    TurnUsage,
)


@dataclass(frozen=True)
class MessageFacts:
    """Hold what an answer repeats.

    Args:
        model: that answers.
        ignored: fields of the request that have no effect, with the reasons.
    """

    model: str
    ignored: Mapping[str, str] = field(default_factory=dict)

    def seen(self, outcome: TurnOutcome) -> dict[str, Any]:
        """Return the field `streamingllm` of an answer."""
        assert outcome.ended is not None
        ignored = {"ignored_fields": dict(self.ignored)} if self.ignored else {}
        return forgetting(outcome.ended, message_id=outcome.started.answer_id, **ignored)


def message_body(facts: MessageFacts, outcome: TurnOutcome) -> dict[str, Any]:
    """Return the answer as one object."""
    ended = outcome.samples[0]
    return {
        **_message(facts, outcome.started.answer_id),
        "content": list(_blocks(ended, outcome.started.answer_id)),
        **_stop_fields(ended),
        "usage": usage_fields(outcome.usage),
        "streamingllm": facts.seen(outcome),
    }


async def message_events(
    facts: MessageFacts, started: TurnStarted, events: AsyncIterator[TurnEvent]
) -> AsyncIterator[bytes]:
    """Yield the events of a stream; `message_delta` comes once the turn is durable."""
    usage = TurnUsage(
        num_cached_tokens=started.num_cached_tokens,
        num_fed_tokens=started.num_prompt_tokens - started.num_cached_tokens,
        num_generated_tokens=0,
        num_reasoning_tokens=0,
        num_evicted_tokens=started.view.num_forgotten_tokens,
    )
    message = {**_message(facts, started.answer_id), "usage": usage_fields(usage)}
    yield _event("message_start", message=message)
    outcome, blocks = TurnOutcome(started), _BlockWriter(started.answer_id)
    async for event in events:
        outcome.add(event)
        if isinstance(event, TextDelta | ToolCallDelta):
            for encoded in blocks.write(event):
                yield encoded
    for encoded in blocks.finish():
        yield encoded
    yield _event(
        "message_delta",
        delta=_stop_fields(outcome.samples[0]),
        usage=usage_fields(outcome.usage),
        streamingllm=facts.seen(outcome),
    )
    yield _event("message_stop")


def error_event(error: ApiError) -> bytes:
    """Return the event of a stream that fails after it began."""
    return sse_event(to_json(error_body("anthropic", error)), "error")


def usage_fields(usage: TurnUsage) -> dict[str, Any]:
    """Return the usage of an answer in Anthropic's words; input tokens are those that were fed."""
    return {
        "input_tokens": usage.num_fed_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.num_cached_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.num_generated_tokens,
        "output_tokens_details": {"thinking_tokens": usage.num_reasoning_tokens},
        "inference_geo": None,
        "server_tool_use": None,
        "service_tier": "standard",
        "evicted_tokens": usage.num_evicted_tokens,
    }


class _BlockWriter:
    """Write deltas as blocks, one open at a time."""

    def __init__(self, signature: str) -> None:
        self._signature = signature
        self._number = -1
        self._open: tuple[str, int] | None = None

    def write(self, event: TextDelta | ToolCallDelta) -> Iterator[bytes]:
        """Yield the events of a delta."""
        if isinstance(event, ToolCallDelta):
            start = _tool_use(event.id, event.name, {})
            yield from self._ensure("tool_use", event.number, start)
            if event.arguments:
                yield self._delta("input_json_delta", partial_json=event.arguments)
        elif not event.text:
            return
        elif event.is_reasoning:
            start = {"type": "thinking", "thinking": "", "signature": ""}
            yield from self._ensure("thinking", 0, start)
            yield self._delta("thinking_delta", thinking=event.text)
        else:
            yield from self._ensure("text", 0, {"type": "text", "text": ""})
            yield self._delta("text_delta", text=event.text)

    def finish(self) -> Iterator[bytes]:
        """Yield the end of the last block; an answer without any has an empty text."""
        if self._number < 0:
            yield from self._ensure("text", 0, {"type": "text", "text": ""})
        yield from self._close()

    def _ensure(self, kind: str, number: int, start: dict[str, Any]) -> Iterator[bytes]:
        if self._open == (kind, number):
            return
        yield from self._close()
        self._number += 1
        self._open = (kind, number)
        yield _event("content_block_start", index=self._number, content_block=start)
        if self._number == 0:
            yield _event("ping")

    def _close(self) -> Iterator[bytes]:
        if self._open is None:
            return
        if self._open[0] == "thinking":
            yield self._delta("signature_delta", signature=self._signature)
        yield _event("content_block_stop", index=self._number)
        self._open = None

    def _delta(self, kind: str, **fields: str) -> bytes:
        delta = {"type": kind, **fields}
        return _event("content_block_delta", index=self._number, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    return sse_event(to_json({"type": kind, **fields}), kind)


def _message(facts: MessageFacts, message_id: str) -> dict[str, Any]:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": facts.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
    }


def _stop_fields(ended: SampleEnded) -> dict[str, Any]:
    if ended.reason in (FinishReason.LENGTH, FinishReason.DEADLINE):
        reason = "max_tokens"
    elif ended.tool_calls:
        reason = "tool_use"
    else:
        reason = "end_turn" if ended.stop_string is None else "stop_sequence"
    stop_string = ended.stop_string if reason == "stop_sequence" else None
    return {"stop_reason": reason, "stop_sequence": stop_string, "stop_details": None}


def _blocks(ended: SampleEnded, signature: str) -> Iterator[dict[str, Any]]:
    if ended.reasoning:
        yield {"type": "thinking", "thinking": ended.reasoning, "signature": signature}
    if ended.message.text or not ended.tool_calls:
        yield {"type": "text", "text": ended.message.text, "citations": None}
    for call in ended.tool_calls:
        yield _tool_use(call.id, call.name, arguments_object(call.arguments))


def _tool_use(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    caller = {"type": "direct"}
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments, "caller": caller}
