"""Answers of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from streamingllm.finish_reason import FinishReason
from streamingllm.server.encoders.common import TurnOutcome, forgetting, to_json
from streamingllm.server.errors import ApiError, error_body
from streamingllm.server.sse import sse_event
from streamingllm.server.token_texts import TokenTexts
from streamingllm.sessions.transcript import ToolCall
from streamingllm.sessions.turn import (
    SampleEnded,
    TextDelta,
    ToolCallDelta,
    TurnEvent,
    TurnStarted,
    TurnUsage,
)
from streamingllm.stream.next_token import TokenLogprobs

DONE = sse_event("[DONE]")
LEAST_LOGPROB = -9999.0  # JSON has no infinity


@dataclass(frozen=True)
class ChatFacts:
    """Hold what each chunk of an answer repeats.

    Args:
        id: of the answer.
        created: seconds since 1970.
        model: that answers.
        fingerprint: of the weights and the program.
        num_samples: of the answer.
        includes_usage: whether a stream ends with the usage.
        token_texts: of the model's tokens, if their probabilities were asked for.
    """

    id: str
    created: int
    model: str
    fingerprint: str
    num_samples: int = 1
    includes_usage: bool = False
    token_texts: TokenTexts | None = None

    def envelope(self, kind: str) -> dict[str, Any]:
        """Return the fields of an answer or of a chunk."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": self.fingerprint,
        }


def chat_completion(facts: ChatFacts, outcome: TurnOutcome) -> dict[str, Any]:
    """Return the answer as one object."""
    assert outcome.ended is not None
    choices = [
        _choice(facts, ended, outcome.logprobs.get(number, []))
        for number, ended in sorted(outcome.samples.items())
    ]
    return {
        **facts.envelope("chat.completion"),
        "choices": choices,
        "usage": usage_fields(outcome.usage),
        "streamingllm": forgetting(outcome.ended, message_id=outcome.started.answer_id),
    }


async def chat_chunks(
    facts: ChatFacts, started: TurnStarted, events: AsyncIterator[TurnEvent]
) -> AsyncIterator[bytes]:
    """Yield the events of a stream; the reasons why samples ended come once the turn is durable."""
    envelope = facts.envelope("chat.completion.chunk")
    if facts.includes_usage:
        envelope["usage"] = None

    def chunk(choices: list[dict[str, Any]], **fields: Any) -> bytes:
        return sse_event(to_json({**envelope, "choices": choices, **fields}))

    for sample in range(facts.num_samples):
        yield chunk([_delta(sample, {"role": "assistant", "content": "", "refusal": None})])
    outcome = TurnOutcome(started)
    async for event in events:
        outcome.add(event)
        if isinstance(event, TextDelta | ToolCallDelta):
            yield chunk([_choice_delta(facts, event)])
    last = list(_last_choices(outcome))
    assert outcome.ended is not None
    seen = {"streamingllm": forgetting(outcome.ended, message_id=started.answer_id)}
    for number, choice in enumerate(last):
        is_last = number == len(last) - 1 and not facts.includes_usage
        yield chunk([choice], **(seen if is_last else {}))
    if facts.includes_usage:
        yield chunk([], usage=usage_fields(outcome.usage), **seen)
    yield DONE


def error_event(error: ApiError) -> bytes:
    """Return the event of a stream that fails after it began."""
    return sse_event(to_json(error_body("openai", error)))


def usage_fields(usage: TurnUsage) -> dict[str, Any]:
    """Return the usage of an answer in the words of completions."""
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_generated_tokens,
        "total_tokens": usage.num_prompt_tokens + usage.num_generated_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.num_reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "evicted_tokens": usage.num_evicted_tokens,
    }


def finish_reason(ended: SampleEnded) -> str:
    """Return why a sample ended, in the words of chat completions."""
    if ended.reason in (FinishReason.LENGTH, FinishReason.DEADLINE):
        return "length"
    return "tool_calls" if ended.tool_calls else "stop"


def _choice(
    facts: ChatFacts, ended: SampleEnded, logprobs: Sequence[TokenLogprobs]
) -> dict[str, Any]:
    text = ended.message.text
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not ended.tool_calls else None,
        "refusal": None,
        "annotations": [],
    }
    if ended.reasoning:
        message["reasoning_content"] = ended.reasoning
    if ended.tool_calls:
        message["tool_calls"] = [_tool_call(call) for call in ended.tool_calls]
    return {
        "index": ended.sample,
        "message": message,
        "logprobs": _logprobs(facts, logprobs),
        "finish_reason": finish_reason(ended),
    }


def _tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _delta(
    sample: int,
    delta: dict[str, Any],
    logprobs: dict[str, Any] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {"index": sample, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _choice_delta(facts: ChatFacts, event: TextDelta | ToolCallDelta) -> dict[str, Any]:
    if isinstance(event, ToolCallDelta):
        call: dict[str, Any] = {"index": event.number}
        function = {"arguments": event.arguments}
        if event.is_first:
            call |= {"id": event.id, "type": "function"}
            function = {"name": event.name, **function}
        return _delta(event.sample, {"tool_calls": [{**call, "function": function}]})
    if event.is_reasoning:
        return _delta(event.sample, {"reasoning_content": event.text})
    return _delta(event.sample, {"content": event.text}, _logprobs(facts, event.logprobs))


def _last_choices(outcome: TurnOutcome) -> Iterator[dict[str, Any]]:
    for number, ended in sorted(outcome.samples.items()):
        yield _delta(number, {}, reason=finish_reason(ended))


def _logprobs(facts: ChatFacts, found: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
    texts = facts.token_texts
    if texts is None:
        return None

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        token_bytes = texts.bytes_of(token_id)
        return {
            "token": token_bytes.decode(errors="replace"),
            "logprob": max(logprob, LEAST_LOGPROB),
            "bytes": list(token_bytes),
        }

    content = [
        {
            **entry(one.token_id, one.logprob),
            "top_logprobs": [entry(token_id, logprob) for token_id, logprob in one.top],
        }
        for one in found
    ]
    return {"content": content, "refusal": None}
