"""What chat completions make of the events of a turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamingllm.errors import StreamingLLMError
from streamingllm.finish_reason import FinishReason
from streamingllm.server.encoders.chat import ChatFacts, chat_chunks, chat_completion
from streamingllm.server.encoders.common import collect
from streamingllm.server.schemas.chat_answers import ChatCompletion, ChatCompletionChunk
from streamingllm.server.token_texts import TokenTexts
from streamingllm.sessions.transcript import ToolCall
from streamingllm.sessions.turn import TextDelta, TurnEvent
from tests.reference.tiny_folder import byte_tokenizer
from tests.server.recorded import (
    ANSWER_ID,
    ARGUMENTS,
    ENDED,
    STARTED,
    ended,
    gather,
    logprobs,
    payloads,
    replay,
    text_turn,
    tool_turn,
    two_samples,
)

pytestmark = pytest.mark.anyio


def facts(**fields: Any) -> ChatFacts:
    return ChatFacts("chatcmpl-1", 7, "tiny", "fp_1", **fields)


async def completion(events: list[TurnEvent], **fields: Any) -> dict[str, Any]:
    outcome = await collect(STARTED, replay(events))
    body = chat_completion(facts(**fields), outcome)
    ChatCompletion.model_validate(body, strict=True)
    return body


async def stream(events: list[TurnEvent], **fields: Any) -> list[dict[str, Any]]:
    chunks = await gather(chat_chunks(facts(**fields), STARTED, replay(events)))
    assert chunks[-1] == b"data: [DONE]\n\n"
    found = payloads(chunks)
    for chunk in found:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    return found


async def test_an_answer_has_all_that_clients_look_for() -> None:
    body = await completion(text_turn("Hel", "lo"))
    (choice,) = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hello",
        "refusal": None,
        "annotations": [],
    }
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "stop"
    assert body["usage"] | {"prompt_tokens_details": 0, "completion_tokens_details": 0} == {
        "prompt_tokens": 60,
        "completion_tokens": 7,
        "total_tokens": 67,
        "prompt_tokens_details": 0,
        "completion_tokens_details": 0,
        "evicted_tokens": 30,
    }
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 50
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2


async def test_an_answer_says_what_was_forgotten() -> None:
    seen = (await completion(text_turn("Hi")))["streamingllm"]
    assert seen["session_id"] == "sess_1"
    counts = (seen["seen_tokens"], seen["visible_tokens"], seen["forgotten_tokens"])
    assert counts == (90, 60, 30)
    assert (seen["first_visible_message"], seen["first_visible_message_id"]) == (4, "msg_4")
    assert seen["message_id"] == ANSWER_ID
    assert seen["notices"] == ["Be careful."]


async def test_the_last_chunk_alone_says_what_was_forgotten() -> None:
    for includes_usage in (False, True):
        chunks = await stream(text_turn("Hi"), includes_usage=includes_usage)
        assert [c for c in chunks if "streamingllm" in c] == chunks[-1:]


async def test_usage_comes_last_and_without_choices_if_asked_for() -> None:
    plain = await stream(text_turn("Hi"))
    assert all("usage" not in chunk for chunk in plain)
    *others, last = await stream(text_turn("Hi"), includes_usage=True)
    assert all(chunk["usage"] is None for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 67


async def test_a_stream_joins_to_the_answer() -> None:
    chunks = await stream(tool_turn())
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == "Let me see."
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "Hmm"
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    firsts = [call for call in calls if "id" in call]
    assert [(c["index"], c["id"], c["function"]["name"]) for c in firsts] == [
        (0, "call_0", "weather"),
        (1, "call_1", "clock"),
    ]
    arguments = [c["function"]["arguments"] for c in calls if c["index"] == 0]
    assert "".join(arguments) == ARGUMENTS
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_calls_of_a_whole_answer() -> None:
    (choice,) = (await completion(tool_turn()))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"] == "Hmm"
    assert choice["message"]["tool_calls"][0] == {
        "id": "call_0",
        "type": "function",
        "function": {"name": "weather", "arguments": ARGUMENTS},
    }


async def test_a_call_without_words_has_null_content() -> None:
    body = await completion([ended("", ToolCall("call_0", "clock", "{}")), ENDED])
    assert body["choices"][0]["message"]["content"] is None


async def test_samples_have_numbers_and_reasons_of_their_own() -> None:
    body = await completion(two_samples(), num_samples=2)
    found = [(c["index"], c["message"]["content"], c["finish_reason"]) for c in body["choices"]]
    assert found == [(0, "ac", "stop"), (1, "b", "length")]
    chunks = await stream(two_samples(), num_samples=2)
    texts = {0: "", 1: ""}
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: "ac", 1: "b"}


async def test_logprobs_tell_tokens_and_bytes() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("h\N{EURO SIGN}")["input_ids"]
    events: list[TurnEvent] = [
        TextDelta(0, "h", logprobs(ids[0])),
        TextDelta(0, "", logprobs(*ids[1:3])),
        TextDelta(0, "\N{EURO SIGN}", logprobs(ids[3])),
        TextDelta(0, "no", logprobs(ids[0]), is_reasoning=True),
        ended("h\N{EURO SIGN}"),
        ENDED,
    ]
    body = await completion(events, token_texts=TokenTexts(tokenizer))
    content = body["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == "h\N{EURO SIGN}"
    assert content[0]["token"] == "h"
    assert [top["logprob"] for top in content[0]["top_logprobs"]] == [-0.5, -9999.0]
    chunks = await stream(events, token_texts=TokenTexts(tokenizer))
    streamed = [
        entry
        for chunk in chunks
        for choice in chunk["choices"]
        for entry in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == content


async def test_a_deadline_cuts_an_answer_off() -> None:
    body = await completion(text_turn("Hi", reason=FinishReason.DEADLINE))
    assert body["choices"][0]["finish_reason"] == "length"


async def test_an_answer_that_failed_is_no_answer() -> None:
    failed = text_turn("Hi", reason=FinishReason.FAILED)
    with pytest.raises(StreamingLLMError):
        await completion(failed)


async def test_text_is_plain_utf8() -> None:
    chunks = await gather(chat_chunks(facts(), STARTED, replay(text_turn("\N{EURO SIGN}\n"))))
    text = b"".join(chunks).decode()
    assert "\N{EURO SIGN}" in text
    assert json.dumps("\n")[1:-1] in text
